// One number of one map: what it sees, what it reads, and the arithmetic.

const MOST = 12;
const SIGNS = { add: "+", subtract: "\u2212", multiply: "×", max: "or, if larger,", min: "or, if smaller," };

function drawDetail(state, move, chooseTerm) {
  const layer = layers[state.layer];
  const made = worked(layer, state.row, state.column, state.channel);
  const where = place(layer, state.row, state.column);
  const find = (id) => document.getElementById(id);
  find("heading").textContent = [layer.name, channelName(layer, state.channel), where].filter(Boolean).join(" · ");
  find("story").textContent = story(layer, made, state);
  find("figures").replaceChildren(...figures(layer, made, state, move));
  find("numbers").replaceChildren(...numbers(layer, made, state, chooseTerm));
  find("equation").replaceChildren(...equation(layer, made));
}

function nameOf(number) {
  const owner = ownerOf(number);
  return owner === input ? "the input" : (owner?.name ?? "what stands before it");
}

function story(layer, made, state) {
  const { how } = layer;
  const from = how.operands ? nameOf(how.operands[0]) : "";
  const size = how.windows ? how.windows.map((window) => window.size).slice(page.input.series ? 1 : 0).join(" × ") : "";
  const count = made.terms?.length;
  switch (how.kind) {
    case "input":
      return "A number of the input, as the model is given it.";
    case "conv":
      return `A window of ${size} over ${count === 1 ? "one map" : `${count} maps`} of ${from}: each number times the filter’s weight there, all added up.`;
    case "dense":
      return `Every number of ${from} times a weight of its own, all added up.`;
    case "pool":
      return `The ${{ max: "largest", min: "smallest", sum: "sum" }[how.how]} of the numbers in a window of ${size} on map ${state.channel} of ${from}.`;
    case "same":
      return `The number at the same place of ${from}, scaled and shifted by what was learned for this map.`;
    case "merge":
      return `Branches meet: the numbers at the same place of ${how.operands.map(nameOf).join(" and ")}.`;
    case "concatenate":
      return `Maps put side by side: this one is map ${made.channel} of ${nameOf(made.from)}.`;
    case "moved":
      return `A number of ${nameOf(made.from)} in another place: there it is ${[`map ${made.channel}`, placeIn(made)].filter(Boolean).join(", ")}.`;
    default:
      return "This layer is more than one sum: its number is shown as the model computed it.";
  }
}

function figures(layer, made, state, move) {
  const drawn = [];
  const everything = isVector(layer) && layer.how.kind === "dense";
  const box = seen(layer, state.row, state.column);
  if (layer.how.kind !== "input" && !everything) {
    const channel = inColour(layers[0]) ? 0 : Math.min(state.term ?? 0, layers[0].shape[2] - 1);
    drawn.push(figure(box ? `What it sees of the input: ${extentText(box)}` : "It sees nothing of the input", layers[0], state.layer === 1 ? channel : 0, box));
  }
  const source = layer.how.operands && ownerOf(made.from ?? layer.how.operands[0]);
  if (source && source !== layers[0] && !isVector(source)) {
    const channel = made.terms ? made.terms[termIndex(made, state)].channel : (made.channel ?? state.channel);
    if (layer.how.kind !== "dense") drawn.push(figure(`What it reads: map ${channel} of ${source.name}`, source, channel, reads(layer, made, state)));
  }
  const own = figure(`${channelName(layer, state.channel)} of ${layer.name}`, layer, state.channel, [[state.row, state.row], [state.column, state.column]]);
  if (isVector(layer)) return drawn;
  own.classList.add("own");
  makeWalkable(own.querySelector(".frame"), layer, state, move);
  return [...drawn, own];
}

function extentText(box) {
  const sizes = box.map(([first, last]) => last - first + 1);
  return page.input.series ? `${sizes[1]} positions` : `${sizes.join(" × ")} pixels`;
}

// The window on what is read, as far as it is no padding.
function reads(layer, made, state) {
  const cells = made.terms?.[0].cells.filter((cell) => cell.inside);
  if (made.row !== undefined) return [[made.row, made.row], [made.column, made.column]];
  if (!made.terms) return [[state.row, state.row], [state.column, state.column]];
  if (!cells.length) return null;
  return [cells.map((cell) => cell.row), cells.map((cell) => cell.column)].map((all) => [-largest(all.map((v) => -v)), largest(all)]);
}

// The cell under the pointer, or where the arrow keys lead, becomes the number that is shown.
function makeWalkable(frame, layer, state, move) {
  const [height, width] = layer.shape;
  const follow = (event) => {
    const { left, top, width: w, height: h } = frame.getBoundingClientRect();
    const inside = (share, n) => Math.min(Math.max(Math.floor(share * n), 0), n - 1);
    move(inside((event.clientY - top) / h, height), inside((event.clientX - left) / w, width));
  };
  frame.tabIndex = 0;
  frame.role = "application";
  frame.ariaLabel = `${layer.name}, ${channelName(layer, state.channel)}: the arrow keys move from number to number`;
  frame.addEventListener("pointermove", follow);
  frame.addEventListener("pointerdown", follow);
  frame.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [0, 0];
    if (!down && !right) return;
    event.preventDefault();
    move(Math.min(Math.max(state.row + down, 0), height - 1), Math.min(Math.max(state.column + right, 0), width - 1));
  });
}

// Of a convolution over many maps the one whose products are shown: the chosen one, else the one that adds most.
function termIndex(made, state) {
  const chosen = made.terms.findIndex((term) => term.channel === state.term);
  if (chosen >= 0 || made.terms.length === 1) return Math.max(chosen, 0);
  const sizes = made.terms.map((term) => Math.abs(term.sum));
  return sizes.indexOf(largest(sizes));
}

function numbers(layer, made, state, chooseTerm) {
  if (layer.how.kind === "conv") return convolution(layer, made, state, chooseTerm);
  if (layer.how.kind === "pool" && made.terms[0].cells.length <= 64) return pooling(layer, made);
  if (layer.how.kind === "dense") return contributions(layer, made);
  return [];
}

function convolution(layer, made, state, chooseTerm) {
  const term = made.terms[termIndex(made, state)];
  const biggest = (pick) => largest(made.terms.flatMap((one) => one.cells.map((cell) => Math.abs(pick(cell)))));
  const show = (caption, pick) => table(caption, term.cells, made.width, biggest(pick), { pick });
  const sign = (text) => element("span", { className: "sign", textContent: text });
  const row = element("div", { className: "working" }, [
    show("window", (cell) => cell.value),
    sign("×"),
    show("filter", (cell) => cell.weight),
    sign("="),
    show("products", (cell) => cell.product),
    sign(`→ ${exact(term.sum)}`),
  ]);
  if (made.terms.length === 1) return [row];
  const limit = largest(made.terms.map((one) => Math.abs(one.sum)));
  const bars = made.terms.map((one) => {
    const bar = element("button", { type: "button", title: `map ${one.channel}: ${exact(one.sum)}`, ariaLabel: `map ${one.channel} adds ${exact(one.sum)}` });
    bar.style.setProperty("--share", one.sum / Math.max(limit, 1e-12));
    bar.classList.add(one.sum < 0 ? "below" : "above");
    bar.ariaPressed = one === term ? "true" : "false";
    bar.addEventListener("click", () => chooseTerm(one.channel));
    return bar;
  });
  const caption = element("p", { textContent: `What each of the ${made.terms.length} maps adds; shown above: map ${term.channel}.` });
  return [row, element("div", { className: "bars", ariaLabel: "What each map adds" }, bars), caption];
}

function pooling(layer, made) {
  const limit = Math.max(...extent(layer.how.operands[0]).map(Math.abs));
  const [{ cells }] = made.terms;
  const taken = cells.find((cell) => cell.inside && cell.value === made.sum && layer.how.how !== "sum");
  return [element("div", { className: "working" }, [table("window", cells, made.width, limit, { pick: (cell) => cell.value, mark: (cell) => cell === taken })])];
}

function contributions(layer, made) {
  const sorted = [...made.products].sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  const limit = Math.max(Math.abs(sorted[0].product), 1e-12);
  const rest = sorted.slice(MOST);
  const line = (name, terms, product) => {
    const bar = element("span", { className: product < 0 ? "bar below" : "bar above" });
    bar.style.width = `${Math.min(100, (100 * Math.abs(product)) / limit)}%`;
    const cells = [name, terms, exact(product)].map((text) => element("td", { textContent: text }));
    return element("tr", {}, [...cells, element("td", { className: "wide" }, [bar])]);
  };
  const rows = sorted.slice(0, MOST).map((one) => line(unitName(layer, one.channel), `${short(one.value)} × ${short(one.weight)}`, one.product));
  if (rest.length) rows.push(line(`${rest.length} others`, "", total(rest.map((one) => one.product))));
  return [element("table", {}, [element("caption", { textContent: "The largest products" }), element("tbody", {}, rows)])];
}

function placeIn({ from, row, column }) {
  const owner = ownerOf(from);
  return owner ? place(owner, row, column) : "";
}

// Which number of the maps before a flattening a unit is.
function unitName(layer, channel) {
  const source = ownerOf(layer.how.operands[0]);
  if (source?.how.kind !== "moved") return `unit ${channel}`;
  const from = WORKED.moved(source, 0, 0, channel);
  const owner = ownerOf(from.from);
  return owner ? `${owner.name}, map ${from.channel}, ${place(owner, from.row, from.column)}` : `unit ${channel}`;
}

function equation(layer, made) {
  const strong = (value) => element("output", { id: "value", textContent: exact(value) });
  if (made.sum === undefined) return [strong(made.value)];
  const words = [`${sumText(layer, made)} = `, element("span", { id: "sum", textContent: exact(made.sum) })];
  if (layer.how.kind === "same") words.shift();
  const follows = times(made.scale, made.shift);
  words.push(follows);
  if (follows) words.push(" = ", element("span", { id: "before", textContent: exact(made.before) }));
  if (!layer.activation.length) return [...words, element("output", { id: "value", hidden: true, textContent: exact(made.value) })];
  const functions = layer.activation.join(", ");
  return [...words, `, then ${functions}${times(...made.after)}: `, strong(made.value)];
}

function times(scale, shift) {
  const factor = scale === 1 ? "" : ` × ${exact(scale)}`;
  return shift === 0 ? factor : `${factor} ${shift < 0 ? "\u2212" : "+"} ${exact(Math.abs(shift))}`;
}

function sumText({ how }, made) {
  if (how.kind === "conv") return `Sum of ${made.terms.length * made.terms[0].cells.length} products`;
  if (how.kind === "dense") return `Sum of ${made.products.length} products`;
  if (how.kind === "pool") return `${{ max: "Largest", min: "Smallest", sum: "Sum" }[how.how]} of ${made.terms[0].cells.filter((cell) => cell.inside).length}`;
  if (how.kind === "merge") return made.values.map(exact).join(` ${SIGNS[how.how]} `);
  return "The same number";
}

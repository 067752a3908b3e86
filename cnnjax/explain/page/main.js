// What is chosen, and what happens when something else is.

const flow = document.getElementById("flow");
const state = { layer: 0, channel: 0, row: 0, column: 0, term: null };

function draw() {
  const focused = document.activeElement?.closest?.(".own .frame, .bars button");
  const again = focused?.matches(".frame") ? ".own .frame" : `.bars button[aria-label="${focused?.ariaLabel}"]`;
  drawDetail(state, move, (term) => update({ term }));
  // What had the keyboard was drawn anew.
  if (focused) document.querySelector(again)?.focus({ preventScroll: true });
}

function update(changes) {
  Object.assign(state, changes);
  draw();
}

function move(row, column) {
  if (row !== state.row || column !== state.column) update({ row, column });
}

// A map is shown at its strongest number first.
function choose(index, channel) {
  const [height, width] = layers[index].shape;
  const places = range(height * width).map((i) => [Math.floor(i / width), i % width]);
  const sizes = places.map(([row, column]) => Math.abs(valueOf(layers[index], row, column, channel)));
  const [row, column] = places[sizes.indexOf(largest(sizes))];
  update({ layer: index, channel, row, column, term: null });
  markChosen(flow, state);
}

function classOf(index) {
  return page.classes ? page.classes[index] : `class ${index}`;
}

// The last layer's scores, turned into probabilities.
function drawSoftmax() {
  const section = document.getElementById("softmax");
  const array = arrays[page.scores];
  const [height, width, count] = array.shape;
  if (height * width > 1 || count < 2) return section.remove();
  const scores = [...array.values];
  const { top, powers, sum, shares } = softmax(scores);
  const order = range(count).sort((a, b) => scores[b] - scores[a]);
  const rows = order.slice(0, 10).map((index) => {
    const bar = element("span", { className: "bar above" });
    bar.style.width = `${100 * shares[index]}%`;
    const texts = [classOf(index), exact(scores[index]), `e^(${exact(scores[index] - top)}) = ${exact(powers[index])}`, percent(shares[index])];
    return element("tr", {}, [...texts.map((textContent) => element("td", { textContent })), element("td", { className: "wide" }, [bar])]);
  });
  const head = element("tr", {}, ["", "score", "e to the score, less the largest", `divided by their sum, ${exact(sum)}`, ""].map((textContent) => element("th", { textContent })));
  section.replaceChildren(
    element("h2", { textContent: "From scores to probabilities: softmax" }),
    element("table", {}, [element("thead", {}, [head]), element("tbody", {}, rows)]),
  );
  const [first, second] = order;
  document.getElementById("verdict").textContent =
    `It says ${classOf(first)}, ${percent(shares[first])} sure; the runner-up is ${classOf(second)}, ${percent(shares[second])}.`;
}

drawFlow(flow, choose);
drawSoftmax();
choose(layers.length > 1 ? 1 : 0, strongestMap(layers[layers.length > 1 ? 1 : 0]));

function strongestMap(layer) {
  const peaks = layer.shown.map((channel) => {
    const [height, width] = layer.shape;
    return largest(range(height * width).map((i) => valueOf(layer, Math.floor(i / width), i % width, channel)));
  });
  return layer.shown[peaks.indexOf(largest(peaks))];
}

// The layers from left to right, each with its maps.

function drawFlow(container, choose) {
  container.replaceChildren(...layers.map((layer, index) => card(layer, index, choose)));
}

function card(layer, index, choose) {
  const activation = layer.activation.length ? ` + ${layer.activation.join(" + ")}` : "";
  const head = element("header", {}, [
    element("h3", { textContent: layer.name, title: layer.name }),
    element("p", { textContent: `${layer.kind.replaceAll("_", " ")}${activation}` }),
    element("p", { textContent: sizeOf(layer), className: "size" }),
  ]);
  const maps = element("div", { className: isVector(layer) ? "maps units" : "maps" });
  if (layer.shape[0] === 1 && layer.shape[1] > 1) maps.classList.add("strips");
  const named = index === layers.length - 1 && isVector(layer) && layer.shape[2] <= 20;
  maps.classList.toggle("named", named);
  layer.shown.forEach((channel, order) => {
    const button = isVector(layer) ? unit(layer, channel, named) : thumbnail(layer, channel);
    button.type = "button";
    button.tabIndex = order === 0 ? 0 : -1;
    button.dataset.layer = index;
    button.dataset.channel = channel;
    const value = isVector(layer) ? `, ${short(valueOf(layer, 0, 0, channel))}` : "";
    button.ariaLabel = `${layer.name}, ${channelName(layer, channel)}${value}`;
    button.title = `${channelName(layer, channel)}${value}`;
    button.addEventListener("click", () => choose(index, channel));
    maps.append(button);
  });
  maps.addEventListener("keydown", (event) => walk(event, maps));
  const parts = [head, maps];
  if (index && !follows(layer, index)) parts.push(element("p", { className: "from", textContent: `reads ${sources(layer)}` }));
  const hidden = layer.shape[2] - layer.shown.length;
  if (hidden) parts.push(element("p", { className: "from", textContent: `${hidden} weaker ones are not shown` }));
  return element("section", { className: "card", ariaLabel: layer.name }, parts);
}

function sizeOf({ shape: [height, width, depth] }) {
  return (height * width === 1 ? [depth] : height === 1 ? [width, depth] : [height, width, depth]).join(" × ");
}

function follows(layer, index) {
  const before = layers[index - 1].how.kind === "input" ? "" : layers[index - 1].name;
  return layer.inputs.length === 1 && layer.inputs[0] === before;
}

function sources(layer) {
  return layer.inputs.map((name) => name || "the input").join(" and ") || "parameters alone";
}

function thumbnail(layer, channel) {
  const canvas = element("canvas");
  paint(canvas, layer, channel);
  return element("button", { className: "map" }, [canvas]);
}

function unit(layer, channel, named) {
  const value = valueOf(layer, 0, 0, channel);
  const cell = element("span", { className: "cell" });
  cell.style.background = css(scaleOf(layer)(value));
  const label = page.classes ? page.classes[channel] : channel;
  const text = named ? [element("span", { className: "name", textContent: label }), element("span", { textContent: short(value) })] : [];
  return element("button", { className: "unit" }, [cell, ...text]);
}

// The arrow keys walk through the maps of a layer; Tab goes on to the next layer.
function walk(event, maps) {
  const buttons = [...maps.children];
  const columns = buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const next = buttons[buttons.indexOf(document.activeElement) + step];
  if (step === undefined) return;
  event.preventDefault();
  if (next === undefined) return;
  buttons.forEach((button) => (button.tabIndex = -1));
  next.tabIndex = 0;
  next.focus();
}

function markChosen(container, { layer, channel }) {
  for (const button of container.querySelectorAll("button")) {
    const chosen = Number(button.dataset.layer) === layer && Number(button.dataset.channel) === channel;
    button.ariaPressed = chosen ? "true" : "false";
  }
}

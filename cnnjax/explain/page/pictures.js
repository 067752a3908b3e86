// Maps as pictures: one pixel a number, enlarged without smoothing.

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function inColour(layer) {
  return layer.how.kind === "input" && layer.shape[2] === 3 && !page.input.series;
}

// Draw a map at one pixel a number; the style sheet enlarges it.
function paint(canvas, layer, channel) {
  const [height, width] = layer.shape;
  const colour = scaleOf(layer);
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const rgb = inColour(layer)
        ? [0, 1, 2].map((k) => colour(valueOf(layer, row, column, k))[0])
        : colour(valueOf(layer, row, column, channel));
      pixels.data.set([...rgb, 255], 4 * (row * width + column));
    }
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// A large map with a box around some of its cells, [[first, last] of rows, [first, last] of columns].
function figure(caption, layer, channel, box) {
  const [height, width] = layer.shape;
  const canvas = element("canvas");
  if (height === 1 && width > 1) drawSeries(canvas, layer, channel, box);
  else paint(canvas, layer, channel);
  const frame = element("div", { className: "frame" }, [canvas]);
  frame.style.setProperty("--ratio", height === 1 && width > 1 ? 3 : Math.min(Math.max(width / height, 0.4), 3));
  if (box) frame.append(outline(box, layer.shape));
  return element("figure", {}, [frame, element("figcaption", { textContent: caption })]);
}

function outline([[top, bottom], [left, right]], [height, width]) {
  const box = element("div", { className: "box" });
  // What lies on the padding is outside of the picture; the frame cuts it off.
  box.style.left = `${(100 * left) / width}%`;
  box.style.top = `${(100 * top) / height}%`;
  box.style.width = `${(100 * (right - left + 1)) / width}%`;
  box.style.height = `${(100 * (bottom - top + 1)) / height}%`;
  return box;
}

// A series as a line over its positions.
function drawSeries(canvas, layer, channel) {
  const [, width] = layer.shape;
  const [low, high] = extent(layer.value);
  canvas.width = 720;
  canvas.height = 240;
  const pen = canvas.getContext("2d");
  const y = (value) => 228 - (216 * (value - low)) / Math.max(high - low, 1e-12);
  pen.strokeStyle = "#8886";
  pen.beginPath();
  pen.moveTo(0, y(0));
  pen.lineTo(720, y(0));
  pen.stroke();
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  pen.lineWidth = 2;
  pen.beginPath();
  range(width).forEach((position) => pen.lineTo((720 * (position + 0.5)) / width, y(valueOf(layer, 0, position, channel))));
  pen.stroke();
}

// A table of numbers, coloured around zero; `text` tells what stands in a cell, `mark` which are framed.
function table(caption, cells, columns, limit, { pick, mark = () => false }) {
  const grid = element("div", { className: columns > 7 ? "grid tiny" : "grid" });
  grid.style.gridTemplateColumns = `repeat(${columns}, auto)`;
  for (const cell of cells) {
    const value = pick(cell);
    const rgb = signed(value, limit);
    const made = element("span", { textContent: columns > 7 ? "" : short(value), title: exact(value) });
    made.style.background = css(rgb);
    made.style.color = readableOn(rgb);
    made.classList.toggle("outside", !cell.inside);
    made.classList.toggle("marked", mark(cell));
    grid.append(made);
  }
  return element("figure", { className: "table" }, [grid, element("figcaption", { textContent: caption })]);
}

"use strict";

// The data of the page. Every array is (rows, columns, channels); a kernel (rows, columns, inputs, outputs).
const page = JSON.parse(document.getElementById("data").textContent);

const arrays = page.arrays.map(({ shape, data }) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return { shape, values: new Float32Array(bytes.buffer) };
});

// The input is a layer too, so that it can be chosen and read like the others.
const input = {
  name: "input",
  kind: page.input.series ? "series" : "picture",
  activation: [],
  inputs: [],
  shape: arrays[page.input.value].shape,
  value: page.input.value,
  how: { kind: "input" },
};
input.shown = Array.from({ length: input.shape[2] }, (_, channel) => channel);
input.sees = input.shape
  .slice(page.input.series ? 1 : 0, 2)
  .map((n, axis) => ({ axis: page.input.series ? 1 : axis, first: range(n), last: range(n) }));

const layers = [input, ...page.layers];

function range(n) {
  return Array.from({ length: n }, (_, i) => i);
}

// One number; an axis of length 1 stands for every place along it.
function at({ shape: [height, width, depth], values }, row, column, channel) {
  const r = height === 1 ? 0 : row;
  const c = width === 1 ? 0 : column;
  return values[(r * width + c) * depth + (depth === 1 ? 0 : channel)];
}

function valueOf(layer, row, column, channel) {
  return at(arrays[layer.value], row, column, channel);
}

// The smallest and the largest value of a layer, over all its maps.
const extents = new Map();
function extent(number) {
  if (!extents.has(number)) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of arrays[number].values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    extents.set(number, [low, high]);
  }
  return extents.get(number);
}

// Who hands on an array; what is made on the way has no name.
function ownerOf(number) {
  return layers.find((layer) => layer.value === number);
}

function isVector({ shape }) {
  return shape[0] === 1 && shape[1] === 1;
}

function short(value) {
  const size = Math.abs(value);
  const digits = size >= 1000 || (size > 0 && size < 0.005) ? value.toExponential(0) : value.toFixed(size < 10 ? 2 : 1);
  return minus(digits);
}

function exact(value) {
  return minus(value.toFixed(5));
}

function minus(text) {
  return text.replace(/-/g, "\u2212");
}

function percent(share) {
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

function place(layer, row, column) {
  if (isVector(layer)) return "";
  return page.input.series ? `position ${column}` : `row ${row}, column ${column}`;
}

function channelName(layer, channel) {
  if (layer === layers[layers.length - 1] && page.classes) return `\u201c${page.classes[channel]}\u201d`;
  return `${isVector(layer) ? "unit" : "map"} ${channel}`;
}

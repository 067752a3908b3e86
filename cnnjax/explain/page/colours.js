// Numbers as colours: grey for pictures, blue-white-red around zero, and viridis for what is never below zero.
const GREYS = [[0, 0, 0], [255, 255, 255]];
const SIGNED = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199], [239, 138, 98], [178, 24, 43]];
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];

function blend(stops, share) {
  const position = Math.min(Math.max(Number.isFinite(share) ? share : 0, 0), 1) * (stops.length - 1);
  const index = Math.min(Math.floor(position), stops.length - 2);
  return stops[index].map((start, i) => Math.round(start + (stops[index + 1][i] - start) * (position - index)));
}

function signed(value, limit) {
  return blend(SIGNED, 0.5 + value / (2 * Math.max(limit, 1e-12)));
}

// The colours of a layer's maps, which share one scale.
function scaleOf(layer) {
  const [low, high] = extent(layer.value);
  if (layer.how.kind === "input" && !page.input.series) return (value) => blend(GREYS, (value - low) / Math.max(high - low, 1e-12));
  const limit = Math.max(Math.abs(low), Math.abs(high), 1e-12);
  if (low < 0) return (value) => signed(value, limit);
  return (value) => blend(VIRIDIS, value / limit);
}

function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

function readableOn([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#111" : "#fff";
}

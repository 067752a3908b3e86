// How one number is made: the same sum as the model's, worked anew from what the layer reads.

// The cells that a window covers along one axis: their places in what is read, or null on the padding.
function covered({ size, stride, low, dilation, holes }, n, position) {
  return range(size).map((tap) => {
    const from = position * stride - low + tap * dilation;
    return from >= 0 && from % holes === 0 && from / holes < n ? from / holes : null;
  });
}

function cellsOf(windows, shape, row, column) {
  const rows = covered(windows[0], shape[0], row);
  const columns = covered(windows[1], shape[1], column);
  return rows.flatMap((r, i) => columns.map((c, j) => ({ i, j, row: r, column: c, inside: r !== null && c !== null })));
}

const WORKED = {
  conv(layer, row, column, channel) {
    const { how } = layer;
    const read = arrays[how.operands[0]];
    const kernel = arrays[how.kernel];
    const [height, width, depth, shown] = kernel.shape;
    const output = layer.shown.indexOf(channel);
    const first = Math.floor(channel / (how.outputs / how.groups)) * depth;
    const cells = cellsOf(how.windows, read.shape, row, column);
    const terms = range(depth).map((k) => {
      const products = cells.map((cell) => {
        const value = cell.inside ? at(read, cell.row, cell.column, first + k) : 0;
        const weight = kernel.values[((cell.i * width + cell.j) * depth + k) * shown + output];
        return { ...cell, value, weight, product: value * weight };
      });
      return { channel: first + k, cells: products, sum: total(products.map((cell) => cell.product)) };
    });
    return { terms, height, width, sum: total(terms.map((term) => term.sum)) };
  },

  dense(layer, row, column, channel) {
    const read = arrays[layer.how.operands[0]];
    const kernel = arrays[layer.how.kernel];
    const [, , depth, shown] = kernel.shape;
    const output = layer.shown.indexOf(channel);
    const products = range(depth).map((k) => {
      const value = at(read, row, column, k);
      const weight = kernel.values[k * shown + output];
      return { channel: k, value, weight, product: value * weight };
    });
    return { products, sum: total(products.map((term) => term.product)) };
  },

  pool(layer, row, column, channel) {
    const { how } = layer;
    const read = arrays[how.operands[0]];
    const cells = cellsOf(how.windows, read.shape, row, column);
    const products = cells.map((cell) => ({ ...cell, value: cell.inside ? at(read, cell.row, cell.column, channel) : 0 }));
    const values = products.filter((cell) => cell.inside).map((cell) => cell.value);
    const combine = { max: largest, min: (all) => -largest(all.map((v) => -v)), sum: total }[how.how];
    const [height, width] = how.windows.map((window) => window.size);
    return { terms: [{ channel, cells: products }], height, width, sum: combine(values) };
  },

  same(layer, row, column, channel) {
    return { sum: at(arrays[layer.how.operands[0]], row, column, channel) };
  },

  merge(layer, row, column, channel) {
    const values = layer.how.operands.map((number) => at(arrays[number], row, column, channel));
    const [a, b] = values;
    const sum = { add: a + b, subtract: a - b, multiply: a * b, max: Math.max(a, b), min: Math.min(a, b) }[layer.how.how];
    return { values, sum };
  },

  concatenate(layer, row, column, channel) {
    let first = 0;
    for (const number of layer.how.operands) {
      const depth = arrays[number].shape[2];
      if (channel < first + depth) return { from: number, channel: channel - first, sum: at(arrays[number], row, column, channel - first) };
      first += depth;
    }
    return null;
  },

  moved(layer, row, column, channel) {
    const [number] = layer.how.operands;
    const [, width, depth] = arrays[number].shape;
    const index = at(arrays[layer.how.places], row, column, channel);
    const from = { row: Math.floor(index / (width * depth)), column: Math.floor(index / depth) % width, channel: index % depth };
    return { ...from, from: number, sum: at(arrays[number], from.row, from.column, from.channel) };
  },
};

function total(values) {
  return values.reduce((sum, value) => sum + value, 0);
}

function largest(values) {
  return values.reduce((best, value) => Math.max(best, value), -Infinity);
}

// The sum, what a scale and a shift make of it, those behind the activation function, and the model's own value.
function worked(layer, row, column, channel) {
  const value = valueOf(layer, row, column, channel);
  const { how } = layer;
  const made = (WORKED[how.kind] ?? (() => null))(layer, row, column, channel);
  if (made === null) return { value };
  const [scale, shift] = how.before.map((number) => at(arrays[number], row, column, channel));
  const after = how.after.map((number) => at(arrays[number], row, column, channel));
  return { ...made, scale, shift, before: scale * made.sum + shift, after, value };
}

// The pixels [first, last] that a number sees along the rows and columns of the input; null if none.
function seen(layer, row, column) {
  const ends = layer.sees.map(({ axis, first, last }) => {
    const position = axis === null ? 0 : [row, column][axis];
    return [first[position], last[position]];
  });
  const box = page.input.series ? [[0, 0], ...ends] : ends;
  return box.every(([first, last]) => first <= last) ? box : null;
}

function softmax(scores) {
  const top = largest(scores);
  const powers = scores.map((score) => Math.exp(score - top));
  const sum = total(powers);
  return { top, powers, sum, shares: powers.map((power) => power / sum) };
}

// What the networks see of an image, as Pillow resizes it: weights in fixed point with 22 bits,
// rounded to 8 bits after each of two passes. The same pixels give the same bytes.
const BITS = 22;
const FILTERS = {
  bilinear: { reach: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    reach: 2,
    at: (x) => {
      const a = -0.5;
      const t = Math.abs(x);
      if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
      if (t < 2) return (((t - 5) * t + 8) * t - 4) * a;
      return 0;
    },
  },
};

// For each result from `first` to `last` of `size`, over the interval [from, to) of `length`
// source pixels: where its sources begin, how many there are, and their weights.
const weightsOf = (length, from, to, size, filter, first, last) => {
  const scale = Math.fround(to - from) / size;
  const stretch = Math.max(scale, 1);
  const support = filter.reach * stretch;
  const width = Math.ceil(support) * 2 + 1;
  const begins = new Int32Array(last - first);
  const counts = new Int32Array(last - first);
  const weights = new Int32Array((last - first) * width);
  for (let place = first; place < last; place += 1) {
    const row = place - first;
    const centre = from + (place + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(length, Math.trunc(centre + support + 0.5)) - begin;
    const values = new Float64Array(count);
    let sum = 0;
    for (let k = 0; k < count; k += 1) {
      values[k] = filter.at((k + begin - centre + 0.5) * (1 / stretch));
      sum += values[k];
    }
    for (let k = 0; k < count; k += 1) {
      const value = sum === 0 ? values[k] : values[k] / sum;
      weights[row * width + k] = Math.trunc((value < 0 ? -0.5 : 0.5) + value * 2 ** BITS);
    }
    begins[row] = begin;
    counts[row] = count;
  }
  return { begins, counts, weights, width, size: last - first };
};

const rounded = (sum) => Math.min(255, Math.max(0, sum >> BITS));

// Rows of RGBA pixels, resized along x into RGB rows of `out` from `row` on.
const alongRows = (pixels, width, rows, table, out, row) => {
  const half = 2 ** (BITS - 1);
  for (let y = 0; y < rows; y += 1) {
    for (let x = 0; x < table.size; x += 1) {
      let r = half;
      let g = half;
      let b = half;
      let source = 4 * (y * width + table.begins[x]);
      const start = x * table.width;
      for (let k = start; k < start + table.counts[x]; k += 1) {
        const weight = table.weights[k];
        r += pixels[source] * weight;
        g += pixels[source + 1] * weight;
        b += pixels[source + 2] * weight;
        source += 4;
      }
      const target = 3 * ((row + y) * table.size + x);
      out[target] = rounded(r);
      out[target + 1] = rounded(g);
      out[target + 2] = rounded(b);
    }
  }
};

// Rows of pixels with `step` values each, resized along y into row `target` of `out`, whose rows
// have `size` pixels; the first of the rows is the first source of result `y`.
const alongColumn = (pixels, step, size, table, y, out, target) => {
  const half = 2 ** (BITS - 1);
  const start = y * table.width;
  for (let x = 0; x < size; x += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      let sum = half;
      let source = step * x + channel;
      for (let k = start; k < start + table.counts[y]; k += 1) {
        sum += pixels[source] * table.weights[k];
        source += step * size;
      }
      out[step * (target * size + x) + channel] = rounded(sum);
    }
  }
};

// Python's round: halves to the even neighbour.
const evenly = (value) => {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
};

// Both axes of a resize: the source interval, its size, and the results that are kept.
const planned = (width, height, wanted) => {
  const side = wanted.size;
  if (wanted.resize === "straight") {
    return [width, height].map((length) => ({ from: 0, to: length, size: side, first: 0 }));
  }
  const short = Math.trunc(side / wanted.crop_share + 1e-6);
  const sizes = width <= height
    ? [short, Math.trunc((short * height) / width)]
    : [Math.trunc((short * width) / height), short];
  const firsts = sizes.map((size) => evenly((size - side) / 2));
  if (Math.max(width, height) <= 16 * Math.min(width, height)) {
    return [width, height].map((length, k) => ({ from: 0, to: length, size: sizes[k], first: firsts[k] }));
  }
  // Of a long strip only what the centre needs: the crop first, then the resize.
  const across = wanted.interpolation === "bicubic" ? 2 : 1;
  return [width, height].map((length, k) => {
    const scale = length / sizes[k];
    const begin = firsts[k] * scale;
    const end = (firsts[k] + side) * scale;
    const reach = across * Math.max(scale, 1) + 1;
    const low = Math.max(0, Math.floor(begin - reach));
    const high = Math.min(length, Math.ceil(end + reach));
    return { from: Math.fround(begin - low), to: Math.fround(end - low), size: side, first: 0, low, high };
  });
};

// The pixels (side, side, 3) that a network with the preprocessing `wanted` sees of an image.
// `read` gives RGBA pixels of a part of it: (left, top, width, height); it is asked for few rows
// at a time, so that memory does not grow with the image.
const seenBy = (width, height, read, wanted) => {
  const filter = FILTERS[wanted.interpolation];
  const [across, down] = planned(width, height, wanted);
  const left = across.low ?? 0;
  const top = down.low ?? 0;
  const wide = (across.high ?? width) - left;
  const high = (down.high ?? height) - top;
  const side = wanted.size;
  const tables = [[wide, across], [high, down]].map(([length, axis]) =>
    weightsOf(length, axis.from, axis.to, axis.size, filter, axis.first, axis.first + side));
  const out = new Uint8Array(3 * side * side);
  if (wanted.columns_first && columnsFirst(wide, high, across, down)) {
    const columns = new Uint8Array(4 * wide * side);
    for (let y = 0; y < side; y += 1) {
      const part = read(left, top + tables[1].begins[y], wide, tables[1].counts[y]);
      alongColumn(part, 4, wide, tables[1], y, columns, y);
    }
    alongRows(columns, wide, side, tables[0], out, 0);
    return out;
  }
  const rows = new Uint8Array(3 * side * high);
  const most = Math.max(1, Math.floor(2 ** 20 / wide));
  for (let row = 0; row < high; row += most) {
    const some = Math.min(most, high - row);
    alongRows(read(left, top + row, wide, some), wide, some, tables[0], rows, row);
  }
  for (let y = 0; y < side; y += 1) {
    alongColumn(rows.subarray(3 * side * tables[1].begins[y]), 3, side, tables[1], y, out, y);
  }
  return out;
};

// Whether newer versions of Pillow begin with the columns: where that removes more.
const columnsFirst = (wide, high, across, down) =>
  high > down.size && high - down.size > 2 * (wide - across.size);

// The input (3, side, side) of a network: values in 0..1, minus mean, over std, in float32.
const normalised = (pixels, wanted) => {
  const count = wanted.size * wanted.size;
  const input = new Float32Array(3 * count);
  for (let channel = 0; channel < 3; channel += 1) {
    const mean = Math.fround(wanted.mean[channel]);
    const std = Math.fround(wanted.std[channel]);
    const table = Float32Array.from({ length: 256 }, (_, value) =>
      Math.fround(Math.fround(value / 255) - mean) / std);
    for (let k = 0; k < count; k += 1) input[channel * count + k] = table[pixels[3 * k + channel]];
  }
  return input;
};

"use strict";
// The geometry of trade-offs, without a page: fronts, ranks, axes and where names stand. Python draws figures by the same
// rules (accuracy/tradeoffs.py, drawings/labels.py).

globalThis.peftmark ??= {};

(() => {
  const rounded = (value) => Math.round(value * 1e9) / 1e9; // equal but for the order of additions is equal

  /** Which of the points [x, y] no other beats: less x is better, and more y times `sign`. Of equal ones all. */
  const front = (points, sign = 1) => {
    const values = points.map(([x, y]) => [x, rounded(sign * y)]);
    const order = values.map((_, index) => index).sort((a, b) => values[a][0] - values[b][0] || values[b][1] - values[a][1]);
    const members = [];
    let [best, at] = [-Infinity, null];
    for (const index of order) {
      const [x, y] = values[index];
      if (y > best || (y === best && x === at)) {
        members.push(index);
        [best, at] = [y, x];
      }
    }
    return members.sort((a, b) => a - b);
  };

  /** Competition ranks, the best first. */
  const ranks = (values, sign = 1) => {
    const signed = values.map((value) => rounded(sign * value));
    return signed.map((value) => 1 + signed.filter((other) => other > value).length);
  };

  /** A value on an axis, in three to four digits. */
  const tick = (value) => {
    for (const [unit, name] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
      if (value >= unit) return `${Number((value / unit).toPrecision(4))}${name}`;
    }
    return String(Number(value.toPrecision(4)));
  };

  /** Round numbers from `low` to `high`, about `count` of them. */
  const between = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((each) => each * power >= rough) ?? 10);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, index) => (first + index) * step);
  };

  /** 1, 2 and 5 of each decade between two logarithms where there are few, else every so manieth decade. */
  const decades = (low, high, count) => {
    const steps = high - low < count / 3 ? [1, 2, 5] : [1];
    const every = Math.ceil((high - low) / count) || 1;
    const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, index) => Math.floor(low) + index);
    const values = powers.filter((power) => power % every === 0).flatMap((power) => steps.map((step) => step * 10 ** power));
    return values.filter((value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9);
  };

  /** An axis for values: where each stands on it, its range, and its ticks in what is seen of it.
   *
   * A logarithmic one has a place for zero left of all others.
   */
  const axis = (values, logarithmic) => {
    if (!logarithmic) {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const margin = 0.06 * (high - low) || 0.1 * Math.abs(low) || 1;
      const ticks = (from, to, count) => between(from, to, count).map((value) => [value, tick(value)]);
      return { place: (value) => value, range: [low - margin, high + 1.5 * margin], divider: null, ticks };
    }
    const positive = values.filter((value) => value > 0).map(Math.log10);
    const [low, high] = [Math.min(...positive), Math.max(...positive)];
    const zero = values.includes(0) ? low - Math.max(0.5, 0.13 * (high - low)) : null;
    const pad = 0.06 * (high - low) + 0.08;
    return {
      place: (value) => (value === 0 ? zero : Math.log10(value)),
      range: [(zero ?? low) - pad, high + 2 * pad],
      divider: zero === null ? null : (zero + low) / 2,
      ticks(from, to, count) {
        const found = decades(Math.max(from, zero === null ? from : (zero + low) / 2), to, count).map((value) => [Math.log10(value), tick(value)]);
        return zero !== null && from <= zero ? [[zero, "0"], ...found] : found;
      },
    };
  };

  // from a point, which way a name lies, in the order of preference; 2 is half a line further
  const SIDES = [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1], [1, 2], [1, -2], [-1, 2], [-1, -2]];
  const overlap = (one, other) => one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
  const distance = ([left, low, right, high], [x, y]) => Math.hypot(Math.max(left - x, 0, x - right), Math.max(low - y, 0, y - high));

  /** A box [left, low, right, high] for each label {at: [x, y], size: [width, height]}, null where every place is taken.
   *
   * No label touches another or a point, leaves the frame, or is nearer to another point than to its own; lines, upright
   * or level boxes, are rather left alone. First come, first served.
   */
  const placeLabels = (labels, points, half, lines, frame) => {
    const taken = points.map(([x, y]) => [x - half, y - half, x + half, y + half]);
    const gap = 1.4 * half;
    return labels.map(({ at: [x, y], size: [width, height] }) => {
      let best = null;
      SIDES.forEach(([right, up], number) => {
        const near = gap * (right && up ? 0.7 : 1);
        const left = right === 0 ? x - width / 2 : right > 0 ? x + near : x - near - width;
        const beside = up === 0 ? y - height / 2 : up > 0 ? y + near : y - near - height;
        const low = Math.abs(up) > 1 ? beside + (height * up) / 4 : beside;
        const box = [left, low, left + width, low + height];
        if (left < frame[0] || low < frame[1] || box[2] > frame[2] || box[3] > frame[3]) return;
        if (taken.some((other) => overlap(box, other))) return;
        const own = distance(box, [x, y]);
        if (points.some((point) => distance(box, point) < own)) return;
        const cost = number + 20 * lines.filter((line) => overlap(box, line)).length;
        if (best === null || cost < best.cost) best = { cost, box };
      });
      if (best) taken.push(best.box);
      return best?.box ?? null;
    });
  };

  peftmark.geometry = { axis, between, front, overlap, placeLabels, ranks, tick };
})();

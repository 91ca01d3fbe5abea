// Float formats narrower than JavaScript's own, and one loss computed in each, naively and stably.
//
// Every operation is done in float64 and rounded to the format, to nearest, ties to even: what a
// processor does that computes each operation wider and stores it in the format.

const TO_INTEGER = 1.5 * 2 ** 52; // adding and taking it off rounds to an integer, ties to even

/** The rounding of a format with so many significant bits and exponents from `least` to `most`. */
function rounding(bits, least, most) {
  const largest = (2 - 2 ** (1 - bits)) * 2 ** most;
  return (value) => {
    if (value === 0 || !Number.isFinite(value)) return value;
    const spacing = 2 ** (Math.max(exponent(value), least) - bits + 1);
    const rounded = (value / spacing + TO_INTEGER - TO_INTEGER) * spacing;
    if (Math.abs(rounded) > largest) return value > 0 ? Infinity : -Infinity;
    return rounded === 0 && value < 0 ? -0 : rounded;
  };
}

/** e with 2^e <= |value| < 2^(e + 1); for subnormal float64 numbers something below -1000. */
function exponent(value) {
  const bytes = new DataView(new ArrayBuffer(8));
  bytes.setFloat64(0, value);
  return ((bytes.getUint16(0) >> 4) & 0x7ff) - 1023;
}

export const FORMATS = [
  { name: "fp16", round: rounding(11, -14, 15) },
  { name: "bf16", round: rounding(8, -126, 127) },
  { name: "fp32", round: Math.fround },
];

const add = (round, values) => values.reduce((total, value) => round(total + value), 0);

/** -log(exp(x_y) / sum exp(x)), as it is written. */
export function naive(logits, target, round) {
  const powers = logits.map((x) => round(Math.exp(round(x))));
  const total = add(round, powers);
  const p = powers.map((power) => round(power / total));
  return {
    largest: Math.max(...powers),
    sum: total,
    p: p[target],
    loss: round(-round(Math.log(p[target]))) + 0,
    gradient: round(p[target] - 1),
  };
}

/** log1p(tail) - (x_y - max), the largest left out of the sum; the gradient without p - 1. */
export function stable(logits, target, round) {
  const x = logits.map(round);
  const k = x.indexOf(Math.max(...x));
  const gap = x.map((value) => round(value - x[k]));
  const powers = gap.map((d) => round(Math.exp(d)));
  const tail = add(round, powers.filter((_, c) => c !== k));
  const total = round(1 + tail);
  return {
    largest: powers[k],
    sum: total,
    p: round(powers[target] / total),
    loss: round(round(Math.log1p(tail)) - gap[target]),
    gradient:
      target === k ? -round(tail / total) + 0 : round(round(powers[target] / total) - 1),
  };
}

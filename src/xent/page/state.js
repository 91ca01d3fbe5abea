// What the page shows, as one record; its checks; and the record as an address and back.
//
// Only what differs from what the page starts with is in the address. A part that cannot be read,
// or is out of range, is left as it was: an address never breaks the page.

export const ROWS = 3;
export const CLASSES = { least: 3, most: 6 };
export const OUTCOMES = { least: 2, most: 6 };
export const WHOLE = 1000; // a distribution is kept in thousandths, which sum to this
export const REDUCTIONS = ["mean", "sum", "none"];
export const UNITS = ["bits", "nats"];
export const LANGUAGES = ["en", "ko"];

// Least, most and step of each slider. Number fields take what is within `field` too.
export const RANGES = {
  logit: { least: -10, most: 10, step: 0.1, field: 1000 },
  temperature: { least: 0.1, most: 5, step: 0.1, field: 1000 },
  smoothing: { least: 0, most: 1, step: 0.01 },
  zLoss: { least: 0, most: 0.2, step: 0.01, field: 1 },
  weight: { least: 0, most: 5, step: 0.1, field: 1000 },
  rate: { least: 0.1, most: 10, step: 0.1, field: 1000 },
  scale: { least: 0, most: 4, step: 0.1 }, // powers of 10
  share: { least: 0, most: 1, step: 0.001 },
  shift: { least: -200, most: 200, step: 1, field: 100000 },
};

/** The course notes' worked example, whose mean is 2.0185, and a third row that is ignored. */
export function example() {
  return {
    logits: [
      [2, 1, 0.1],
      [0.1, 2, 1.9],
      [1, 2, 3],
    ],
    target: [1, 0, 2],
    ignored: [false, false, true],
    weight: [1, 1, 1],
    temperature: 1,
    smoothing: 0,
    zLoss: 0,
    reduction: "mean",
    rate: 1,
    row: 0,
    scale: 0,
    shift: 0,
    p: [800, 200],
    q: [500, 500],
    unit: "bits",
    language: "en",
  };
}

/** Whether a number is one that its field takes. */
export function fits(name, value) {
  const { least, most, field } = RANGES[name];
  if (!Number.isFinite(value)) return false;
  if (field === undefined) return value >= least && value <= most;
  return value >= (least < 0 ? -field : least) && value <= Math.max(most, field);
}

/** The state with so many classes: new ones have logit 0 and weight 1. */
export function withClasses(state, count) {
  const sized = (values, filler) =>
    Array.from({ length: count }, (_, c) => (c < values.length ? values[c] : filler));
  return {
    ...state,
    logits: state.logits.map((row) => sized(row, 0)),
    weight: sized(state.weight, 1),
    target: state.target.map((c) => Math.min(c, count - 1)),
  };
}

/** Integers in proportion to values that sum to exactly `total`; equal ones where all are 0. */
export function apportion(values, total = WHOLE) {
  const sum = values.reduce((a, b) => a + b, 0);
  const ideal = values.map((v) => (sum > 0 ? (v / sum) * total : total / values.length));
  const parts = ideal.map(Math.floor);
  const order = ideal.map((v, i) => [v - parts[i], i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  const missing = total - parts.reduce((a, b) => a + b, 0);
  for (const [, i] of order.slice(0, missing)) parts[i] += 1;
  return parts;
}

/** A distribution with `value` thousandths at one place; the others keep their proportions. */
export function withShare(shares, index, value) {
  const parts = apportion(shares.filter((_, i) => i !== index), WHOLE - value);
  return [...parts.slice(0, index), value, ...parts.slice(index)];
}

const numbers = (text) => text.split(",").map((part) => (part.trim() ? Number(part) : NaN));
const whole = (least, most) => (value) =>
  Number.isInteger(value) && value >= least && value <= most;
const list = (kept) => ({
  write: (values) => values.map(Number).join(","),
  read: numbers,
  fits: kept,
});
const number = (name) => ({ write: String, read: Number, fits: (value) => fits(name, value) });
const one = (values) => ({ write: String, read: String, fits: (value) => values.includes(value) });
const distribution = list((shares) => {
  const within = shares.length >= OUTCOMES.least && shares.length <= OUTCOMES.most;
  const summed = shares.reduce((a, b) => a + b, 0);
  return within && shares.every(whole(0, WHOLE)) && summed === WHOLE;
});

// The order matters: how many classes there are is known from the logits.
const FIELDS = {
  logits: {
    write: (rows) => rows.map((row) => row.join(",")).join(";"),
    read: (text) => text.split(";").map(numbers),
    fits: (rows) =>
      rows.length === ROWS &&
      rows.every((row) => row.length === rows[0].length && row.every((x) => fits("logit", x))) &&
      whole(CLASSES.least, CLASSES.most)(rows[0].length),
  },
  target: list((target, state) => {
    const known = whole(0, state.weight.length - 1);
    return target.length === ROWS && target.every(known);
  }),
  ignored: {
    write: (flags) => flags.map(Number).join(","),
    read: (text) => numbers(text).map((flag) => (flag === 0 || flag === 1 ? flag === 1 : null)),
    fits: (flags) => flags.length === ROWS && !flags.includes(null),
  },
  weight: list((weight, state) => {
    return weight.length === state.weight.length && weight.every((w) => fits("weight", w));
  }),
  temperature: number("temperature"),
  smoothing: number("smoothing"),
  zLoss: number("zLoss"),
  reduction: one(REDUCTIONS),
  rate: number("rate"),
  row: { write: String, read: Number, fits: whole(0, ROWS - 1) },
  scale: number("scale"),
  shift: number("shift"),
  p: distribution,
  q: distribution,
  unit: one(UNITS),
  language: one(LANGUAGES),
};

/** The part of an address after #: what differs from `start`. */
export function write(state, start = example()) {
  const first = withClasses(start, state.weight.length);
  const parts = [];
  for (const [name, field] of Object.entries(FIELDS)) {
    const [value, usual] = [field.write(state[name]), field.write(first[name])];
    const sized = name === "logits" && state.weight.length !== start.weight.length;
    if (value !== usual || sized) parts.push(`${name}=${value}`);
  }
  return parts.join("&");
}

/** The state of an address, read on top of `start`. */
export function read(hash, start = example()) {
  const given = new Map();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [name, ...value] = part.split("=");
    given.set(name, unescaped(value.join("=")));
  }
  let state = start;
  for (const [name, field] of Object.entries(FIELDS)) {
    if (!given.has(name)) continue;
    const value = field.read(given.get(name));
    if (!field.fits(value, state)) continue;
    if (name === "logits") state = withClasses(state, value[0].length);
    state = { ...state, [name]: value };
  }
  return state.p.length === state.q.length ? state : { ...state, p: start.p, q: start.q };
}

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

// The rows of the batch: for each class its target button, its logit, and its bars.

import { el, figure, percent, put, shown, showNumber, svg } from "./dom.js";
import { slider, tick } from "./controls.js";

const HEIGHT = 30;
const P = { from: 0, to: 0.25, number: 0.44 }; // where softmax is drawn, as shares of the width
const G = { from: 0.53, to: 0.84, number: 1 };
const MIDDLE = (G.from + G.to) / 2;

/** Softmax with a mark at the target, and the gradient to the left or right of 0. */
function bars(id, title) {
  const p = svg("rect", { class: "p", x: 0, y: 8, height: 14, rx: 2 });
  const mark = svg("line", { class: "mark", y1: 4, y2: 26 });
  const g = svg("rect", { class: "g", y: 8, height: 14, rx: 2 });
  const axes = [0, MIDDLE].map((x) =>
    svg("line", { class: "axis", x1: percent(x), x2: percent(x), y1: 3, y2: 27 }),
  );
  const numbers = [P, G].map(({ number }) =>
    svg("text", { x: percent(number), y: 20, "text-anchor": "end" }),
  );
  const { node, tell } = figure(id, title, HEIGHT, p, g, axes, mark, numbers);
  const update = (values, scale, told) => {
    const length = (Math.min(1, Math.abs(values.g) / scale) * (G.to - G.from)) / 2;
    put(p, { width: percent(values.p * P.to) });
    put(g, { x: percent(values.g < 0 ? MIDDLE - length : MIDDLE), width: percent(length) });
    const at = percent(Math.min(1, values.t) * P.to);
    put(mark, { x1: at, x2: at });
    mark.style.display = values.t > 0 ? "" : "none";
    showNumber(numbers[0], values.p);
    showNumber(numbers[1], values.g);
    tell(told);
  };
  return { node, update };
}

/** One class of one row. */
function line(page, n, c) {
  const { t, state, set } = page;
  const radio = el("input", {
    type: "radio",
    name: `target-${n}`,
    id: `target-${n}-${c}`,
    "aria-label": t("targetOf", { n: n + 1, c }),
    onchange: () => set({ target: state().target.map((old, i) => (i === n ? c : old)) }),
  });
  const logit = slider({
    id: `logit-${n}-${c}`,
    name: "logit",
    label: null,
    spoken: t("logitOf", { n: n + 1, c }),
    get: () => state().logits[n][c],
    set: (value) => {
      const moved = (row) => row.map((x, i) => (i === c ? value : x));
      set({ logits: state().logits.map((row, i) => (i === n ? moved(row) : row)) });
    },
  });
  const drawn = bars(`bars-${n}-${c}`, t("barsOf", { n: n + 1, c }));
  const chosen = el("label", { class: "target" }, radio, t("class", { c }));
  const node = el("div", { class: "line" }, chosen, logit.node, drawn.node);
  const update = (found) => {
    radio.checked = state().target[n] === c;
    logit.update();
    const values = { p: found.rows[n].p[c], t: found.rows[n].t[c], g: found.gradient[n][c] };
    const told = { p: shown(values.p), t: shown(values.t), g: shown(values.g) };
    drawn.update(values, found.steepest, t("bars", told));
    node.classList.toggle("is-target", radio.checked);
  };
  return { node, update };
}

/** One row: whether it is ignored, its loss, and its classes. */
export function row(page, n) {
  const { t, state, set } = page;
  const ignore = tick({
    id: `ignore-${n}`,
    label: t("ignore"),
    spoken: t("ignoreRow", { n: n + 1 }),
    get: () => state().ignored[n],
    set: (on) => set({ ignored: state().ignored.map((old, i) => (i === n ? on : old)) }),
  });
  const loss = el("output", { id: `loss-${n}`, class: "number" });
  const lines = state().weight.map((_, c) => line(page, n, c));
  const drawn = [`${t("softmax")} ┃ ${t("measure")}`, t("gradient")].map((text) =>
    el("span", {}, text),
  );
  const heads = [
    el("span", {}, t("target")),
    el("span", {}, t("logit")),
    el("span", { class: "of-bars" }, drawn),
  ];
  const node = el(
    "section",
    { class: "row card", "aria-labelledby": `row-${n}` },
    el("header", {}, el("h3", { id: `row-${n}` }, t("row", { n: n + 1 })), ignore.node, loss),
    el("div", { class: "line heads", "aria-hidden": "true" }, heads),
    lines.map(({ node }) => node),
  );
  const update = (found) => {
    const out = state().ignored[n];
    ignore.update();
    loss.textContent = out ? t("ignored") : t("lossOf", { loss: shown(found.rows[n].loss) });
    loss.dataset.value = String(found.rows[n].loss);
    node.classList.toggle("is-ignored", out);
    for (const each of lines) each.update(found);
  };
  return { node, update };
}

// The third panel: two distributions to drag, and entropy, KL divergence and cross entropy stacked.

import { button, choice, counts, selection, slider } from "./controls.js";
import { el, figure, percent, put, shown, showNumber, svg, typed } from "./dom.js";
import { formula } from "./formulas.js";
import { crossEntropy, entropy, klDivergence } from "./math.js";
import { OUTCOMES, UNITS, WHOLE, apportion, withShare } from "./state.js";

const HEIGHT = 190; // of the figure; bars stand between these two
const [TOP, FLOOR] = [22, 166];
const INDEX = "₀₁₂₃₄₅";

const share = (thousandth) => thousandth / WHOLE;

/** The three measures in the unit asked for. */
function measures({ p, q, unit }) {
  const [of, model] = [p.map(share), q.map(share)];
  const size = unit === "bits" ? Math.LN2 : 1;
  return {
    entropy: entropy(of) / size,
    divergence: klDivergence(of, model) / size,
    cross: crossEntropy(of, model) / size,
  };
}

/** Changes of a share: all of a gesture start from the shares before it, so none is forgotten. */
function changing({ state, set }) {
  let start = null;
  const move = (name, i, value) => {
    start ??= state()[name];
    set({ [name]: withShare(start, i, value) });
  };
  return { move, end: () => (start = null) };
}

/** Bars of p and q side by side, each to be dragged. */
function bars(page) {
  const { state } = page;
  const gesture = changing(page);
  const width = 1 / state().p.length;
  const drawn = ["p", "q"].flatMap((name, side) =>
    state()[name].map((_, i) => {
      const left = (i + 0.14 + 0.37 * side) * width;
      const at = { x: percent(left), width: percent(0.34 * width) };
      const bar = svg("rect", { class: name, ...at, rx: 2 });
      const middle = { x: percent(left + 0.17 * width), "text-anchor": "middle" };
      const number = svg("text", middle);
      const named = svg("text", { ...middle, y: FLOOR + 18 }, `${name}${INDEX[i]}`);
      const grab = svg("rect", { class: "grab", id: `grab-${name}-${i}`, ...at });
      put(grab, { y: 0, height: HEIGHT });
      const drag = (event) => {
        const above = FLOOR - (event.clientY - node.getBoundingClientRect().top);
        const value = Math.round((WHOLE * above) / (FLOOR - TOP));
        gesture.move(name, i, Math.max(0, Math.min(WHOLE, value)));
      };
      grab.addEventListener("pointerdown", (event) => {
        grab.setPointerCapture(event.pointerId);
        drag(event);
      });
      grab.addEventListener("pointermove", (event) => {
        if (grab.hasPointerCapture(event.pointerId)) drag(event);
      });
      grab.addEventListener("lostpointercapture", gesture.end);
      const update = () => {
        const top = FLOOR - (FLOOR - TOP) * share(state()[name][i]);
        put(bar, { y: top, height: FLOOR - top });
        put(number, { y: top - 6 });
        number.textContent = share(state()[name][i]).toFixed(2).replace(/^0/, "");
      };
      return { parts: [bar, number, named, grab], update };
    }),
  );
  const floor = svg("line", { class: "axis", x1: 0, x2: "100%", y1: FLOOR, y2: FLOOR });
  const children = [floor, ...drawn.flatMap((each) => each.parts)];
  const { node, tell } = figure("shares", page.t("sharesFigure"), HEIGHT, ...children);
  const update = () => {
    for (const each of drawn) each.update();
    const [p, q] = ["p", "q"].map((name) => state()[name].map(share).join(", "));
    tell(page.t("sharesTold", { p, q }));
  };
  return { node, update };
}

/** H(p) and KL(p||q) end to end, and H(p, q) below them. */
function stack(page) {
  const rects = ["h", "kl", "ce"].map((name) =>
    svg("rect", { class: name, y: name === "ce" ? 58 : 4, height: 46 }),
  );
  const axis = svg("line", { class: "axis", x1: 0, x2: "100%", y1: 112, y2: 112 });
  const ends = [
    svg("text", { class: "tick", x: 0, y: 130 }, "0"),
    svg("text", { class: "tick", x: "100%", y: 130, "text-anchor": "end" }),
  ];
  const { node, tell } = figure("stack", page.t("stackFigure"), 136, rects, axis, ends);
  const update = (found) => {
    const finite = Number.isFinite(found.cross);
    const most = Math.max(finite ? found.cross : 2 * found.entropy, 1e-9);
    const widest = page.state().unit === "bits" ? 2 : 2 * Math.LN2;
    const full = Math.max(most, widest);
    const length = (value) => Math.min(1, value / full);
    const first = length(found.entropy);
    const second = finite ? length(found.divergence) : 1 - first;
    put(rects[0], { x: 0, width: percent(first) });
    put(rects[1], { x: percent(first), width: percent(second) });
    put(rects[2], { x: 0, width: percent(first + second) });
    const unit = page.t(page.state().unit);
    ends[1].textContent = `${typed(full)} ${unit}`;
    const [h, kl, ce] = [found.entropy, found.divergence, found.cross].map(shown);
    tell(page.t("stackTold", { h, kl, ce, unit }));
  };
  return { node, update };
}

function sliders(page) {
  const { t, state } = page;
  const gesture = changing(page);
  return ["p", "q"].map((name) => {
    const all = state()[name].map((_, i) => {
      const made = slider({
        id: `${name}-${i}`,
        name: "share",
        label: `${name}${INDEX[i]}`,
        spoken: t(`${name}Of`, { c: i }),
        get: () => share(state()[name][i]),
        set: (value) => gesture.move(name, i, Math.round(value * WHOLE)),
      });
      for (const input of [made.range, made.field]) {
        input.addEventListener("change", gesture.end);
        input.addEventListener("blur", gesture.end);
      }
      return made;
    });
    return { all, node: el("div", {}, all.map(({ node }) => node)) };
  });
}

function asked(page) {
  const { t, state, set } = page;
  const resized = (shares, n) => apportion(Array.from({ length: n }, (_, i) => shares[i] ?? 0));
  const count = selection({
    id: "outcomes",
    label: t("outcomes"),
    values: counts(OUTCOMES),
    get: () => state().p.length,
    set: (n) => set({ p: resized(state().p, n), q: resized(state().q, n) }),
  });
  const unit = choice({
    id: "unit",
    label: t("unit"),
    values: UNITS,
    text: t,
    get: () => state().unit,
    set: (value) => set({ unit: value }),
  });
  const swap = button("swap", t("swap"), () => set({ p: state().q, q: state().p }));
  return { parts: [count, unit], nodes: [count.node, unit.node, swap] };
}

export function distributionsPanel(page) {
  const { t, state } = page;
  const [controls, drawn, stacked, moved] = [asked(page), bars(page), stack(page), sliders(page)];
  const numbers = ["entropy", "divergence", "cross"].map((id) => el("output", { id }));
  const names = { h: "H(p)", kl: "KL(p‖q)", ce: "H(p, q)" };
  const units = numbers.map(() => el("span", { class: "unit" }));
  const list = Object.entries(names).map(([name, text], i) => {
    const term = el("dt", {}, el("span", { class: `key ${name}` }), text);
    return el("div", {}, term, el("dd", {}, numbers[i], " ", units[i]));
  });
  const note = el("p", { class: "note" });
  const shares = el("div", { class: "shares" }, moved.map((each) => each.node));
  const node = el(
    "section",
    { class: "panel", "aria-labelledby": "distributions" },
    el("h2", { id: "distributions" }, t("distributions")),
    el("p", { class: "lead" }, t("distributionsLead")),
    el("div", { class: "formulas" }, formula("identity")),
    el("div", { class: "card asked" }, controls.nodes),
    el(
      "div",
      { class: "two" },
      el("div", { class: "card" }, drawn.node, shares),
      el("div", { class: "card" }, stacked.node, el("dl", { class: "numbers" }, list), note),
    ),
  );
  const update = () => {
    const found = measures(state());
    const inputs = moved.flatMap(({ all }) => all);
    for (const part of [...controls.parts, drawn, ...inputs]) part.update();
    stacked.update(found);
    for (const unit of units) unit.textContent = t(state().unit);
    numbers.forEach((output) => showNumber(output, found[output.id]));
    note.textContent = Number.isFinite(found.cross) ? "" : t("infinite");
  };
  return { node, update };
}

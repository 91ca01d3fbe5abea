// The second panel: one row's loss in narrow formats, by the naive and by the stable formula.

import { button, numberSlider, selection } from "./controls.js";
import { el, figure, percent, put, shown, showNumber, svg, typed } from "./dom.js";
import { formula } from "./formulas.js";
import { FORMATS, naive, stable } from "./formats.js";
import { statistics } from "./math.js";
import { ROWS } from "./state.js";

// exp(x) rounds to 0 below the first number and to infinity above the second.
const ENDS = {
  fp16: [Math.log(2 ** -25), Math.log(65520)],
  bf16: [Math.log(2 ** -134), Math.log((2 - 2 ** -8) * 2 ** 127)],
  fp32: [Math.log(2 ** -150), Math.log((2 - 2 ** -24) * 2 ** 127)],
};
const EDGE = 130; // the figure shows logits up to this
const TICKS = { "-100": "e⁻¹⁰⁰", "-50": "e⁻⁵⁰", 0: "1", 50: "e⁵⁰", 100: "e¹⁰⁰" };
const LEFT = 0.12;
const SHIFTS = [0, 12, 90, -110];
const STEPS = {
  largest: "largest",
  sum: "total",
  p: "probability",
  loss: "loss",
  gradient: "slope",
};

/** The row that is computed: scaled and shifted, in float64. */
function chosen(state) {
  const logits = state.logits[state.row].map((x) => x * 10 ** state.scale + state.shift);
  const target = state.target[state.row];
  const found = statistics(logits);
  const gradient = target === found.k ? -found.tail / (1 + found.tail) : found.p[target] - 1;
  return { logits, target, loss: found.surprisal[target], p: found.p[target], gradient };
}

function ranges(page) {
  const at = (x) => LEFT + (1 - LEFT) * ((Math.max(-EDGE, Math.min(EDGE, x)) + EDGE) / (2 * EDGE));
  const bands = FORMATS.flatMap(({ name }, i) => {
    const [least, most] = ENDS[name].map(at);
    const box = { x: percent(least), width: percent(most - least), height: 20, rx: 4 };
    const band = svg("rect", { class: "band", y: 6 + 30 * i, ...box });
    return [svg("text", { x: 0, y: 21 + 30 * i }, name), band];
  });
  const ticks = Object.entries(TICKS).map(([x, text]) =>
    svg("text", { x: percent(at(x)), y: 110, "text-anchor": "middle", class: "tick" }, text),
  );
  const dots = FORMATS.map((_, i) =>
    page.state().weight.map(() => svg("circle", { class: "dot", cy: 16 + 30 * i, r: 4.5 })),
  );
  const children = [...bands, ...ticks, ...dots.flat()];
  const { node, tell } = figure("ranges", page.t("rangeFigure"), 116, ...children);
  const update = (row) => {
    FORMATS.forEach(({ name, round }, i) => {
      row.logits.forEach((x, c) => {
        const power = round(Math.exp(round(x)));
        put(dots[i][c], { cx: percent(Math.min(at(x), 0.99)) });
        dots[i][c].classList.toggle("outside", power === 0 || !Number.isFinite(power));
      });
    });
    tell(page.t("rangeTold", { x: row.logits.map(typed).join(", ") }));
  };
  return { node, update };
}

/** How far a loss is off, relative to what is exact. */
function off(loss, exact) {
  if (loss === exact) return "0";
  if (!Number.isFinite(loss)) return "∞";
  const error = Math.abs(loss - exact) / exact;
  if (error >= 1e-3) return `${(100 * error).toFixed(1)} %`;
  return error.toExponential(0).replace("-", "−");
}

function format(page, { name, round }) {
  const { t } = page;
  const cells = {};
  const head = el(
    "tr",
    {},
    el("td"),
    el("th", { scope: "col" }, t("naive")),
    el("th", { scope: "col" }, t("stable")),
  );
  const body = [...Object.keys(STEPS), "error"].map((step) => {
    const pair = ["naive", "stable"].map((way) => el("td", { id: `${name}-${way}-${step}` }));
    cells[step] = pair;
    return el("tr", {}, el("th", { scope: "row" }, t(STEPS[step] ?? "error")), pair);
  });
  const caption = el("caption", {}, name);
  const table = el("table", {}, caption, el("thead", {}, head), el("tbody", {}, body));
  const node = el("div", { class: "card" }, table);
  const update = (row) => {
    [naive, stable].forEach((way, i) => {
      const found = way(row.logits, row.target, round);
      for (const step of Object.keys(STEPS)) {
        const value = found[step];
        const never = step === "largest" || step === "sum" ? 1 : row[step];
        showNumber(cells[step][i], value);
        const broken = !Number.isFinite(value) || (value === 0 && never !== 0);
        cells[step][i].classList.toggle("broken", broken);
      }
      cells.error[i].textContent = off(found.loss, row.loss);
    });
  };
  return { node, update };
}

export function formatsPanel(page) {
  const { t, state, set } = page;
  const row = selection({
    id: "format-row",
    label: t("whichRow"),
    values: Array.from({ length: ROWS }, (_, n) => n),
    text: (n) => String(n + 1),
    get: () => state().row,
    set: (n) => set({ row: n }),
  });
  const sliders = ["scale", "shift"].map((name) => numberSlider(page, name));
  const tries = SHIFTS.map((shift) =>
    button(
      `shift-${shift}`,
      shift ? `${shift > 0 ? "+" : "−"}${Math.abs(shift)}` : t("asItIs"),
      () => set({ shift, scale: 0 }),
    ),
  );
  const told = el("p", { id: "format-row-told", class: "written" });
  const [drawn, tables] = [ranges(page), FORMATS.map((each) => format(page, each))];
  const ways = ["naive", "stable"].map((way) =>
    el("div", { class: "way" }, el("span", {}, t(way)), formula(way)),
  );
  const node = el(
    "section",
    { class: "panel", "aria-labelledby": "formats" },
    el("h2", { id: "formats" }, t("formats")),
    el("p", { class: "lead" }, t("formatsLead")),
    el("div", { class: "formulas" }, ways),
    el(
      "div",
      { class: "card asked" },
      row.node,
      sliders.map((each) => each.node),
      el("div", { class: "buttons", role: "group", "aria-label": t("tries") }, tries),
    ),
    told,
    el("div", { class: "card" }, drawn.node),
    el("div", { class: "tables" }, tables.map((each) => each.node)),
    el("p", { class: "note" }, t("marked")),
  );
  const update = () => {
    const found = chosen(state());
    for (const part of [row, ...sliders]) part.update();
    for (const part of [drawn, ...tables]) part.update(found);
    const x = `[${found.logits.map(typed).join(", ")}]`;
    told.textContent = t("computed", { x, y: found.target, loss: shown(found.loss) });
  };
  return { node, update };
}

// The first panel: three rows, the options of their loss, the result, and steps down its gradient.

import { button, choice, counts, numberSlider, selection, slider } from "./controls.js";
import { el } from "./dom.js";
import { formula } from "./formulas.js";
import { batchLoss, descend } from "./math.js";
import { result } from "./result.js";
import { row } from "./rows.js";
import { CLASSES, REDUCTIONS, ROWS, example, fits, withClasses } from "./state.js";

/** What the batch has, and the longest gradient, which the bars are drawn against. */
function computed(state) {
  const found = batchLoss(state);
  const sizes = found.gradient.flat().map(Math.abs).filter(Number.isFinite);
  return { ...found, steepest: Math.max(0.5, ...sizes) };
}

function weights(page) {
  const { t, state, set } = page;
  return state().weight.map((_, c) =>
    slider({
      id: `weight-${c}`,
      name: "weight",
      label: t("class", { c }),
      spoken: t("weightOf", { c }),
      get: () => state().weight[c],
      set: (value) => set({ weight: state().weight.map((w, i) => (i === c ? value : w)) }),
    }),
  );
}

function options(page) {
  const { t, state, set } = page;
  const classes = selection({
    id: "classes",
    label: t("classes"),
    values: counts(CLASSES),
    get: () => state().weight.length,
    set: (count) => set(withClasses(state(), count)),
  });
  const reduction = choice({
    id: "reduction",
    label: t("reduction"),
    values: REDUCTIONS,
    text: t,
    get: () => state().reduction,
    set: (value) => set({ reduction: value }),
  });
  const numbers = ["temperature", "smoothing", "zLoss"].map((name) => numberSlider(page, name));
  const weighted = weights(page);
  const group = el(
    "fieldset",
    { class: "weights" },
    el("legend", {}, t("weights")),
    weighted.map(({ node }) => node),
  );
  const all = [classes, reduction, ...numbers];
  return { nodes: [...all.map(({ node }) => node), group], parts: [...all, ...weighted] };
}

/** Steps: the history of losses lasts until something else is changed. */
function descent(page) {
  const { t, state, set } = page;
  const rate = numberSlider(page, "rate");
  const count = el("output", { id: "steps" });
  const note = el("p", { class: "note", role: "status" });
  const step = button("step", t("step"), () => {
    const found = batchLoss(state());
    const logits = descend(state().logits, found.gradient, state().rate);
    const good = logits.flat().every((x) => fits("logit", x));
    note.textContent = good ? "" : t("tooFar");
    if (good) set({ logits }, { step: true });
  });
  const back = button("back", t("back"), () => page.undo());
  const again = button("example", t("example"), () => {
    const { logits, target, ignored, weight } = example();
    const { temperature, smoothing, zLoss, reduction, rate } = example();
    const named = { temperature, smoothing, zLoss, reduction, rate };
    set({ logits, target, ignored, weight, ...named });
  });
  const buttons = el("div", { class: "buttons" }, step, back, again, count);
  const update = () => {
    rate.update();
    const taken = page.history().length - 1;
    count.textContent = t("steps", { n: taken });
    back.disabled = taken === 0;
  };
  const name = el("p", { class: "legend", id: "descent" }, t("descent"));
  const attributes = { class: "descent", role: "group", "aria-labelledby": "descent" };
  return { node: el("div", attributes, name, rate.node, buttons, note), update };
}

export function batchPanel(page) {
  const { t, state } = page;
  const [asked, steps, outcome] = [options(page), descent(page), result(page)];
  const rows = Array.from({ length: ROWS }, (_, n) => row(page, n));
  const node = el(
    "section",
    { class: "panel", "aria-labelledby": "batch" },
    el("h2", { id: "batch" }, t("batch")),
    el("p", { class: "lead" }, t("batchLead")),
    el("div", { class: "formulas" }, ["loss", "gradient", "mass"].map(formula)),
    el(
      "div",
      { class: "bench" },
      el(
        "aside",
        { class: "options card", "aria-label": t("options") },
        asked.nodes,
        steps.node,
      ),
      el("div", { class: "rows" }, rows.map((each) => each.node), outcome.node),
    ),
  );
  const update = () => {
    const found = computed(state());
    for (const part of [...asked.parts, steps]) part.update();
    for (const part of [...rows, outcome]) part.update(found);
  };
  return { node, update };
}

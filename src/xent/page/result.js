// What the rows become: the loss with its denominator written out, its bars, and the steps so far.

import { el, figure, percent, put, shown, showNumber, svg, typed } from "./dom.js";

const HEIGHT = 22;

/** A bar for the loss of each row. */
function losses(page) {
  const rows = page.state().target.map((_, n) => ({
    name: svg("text", { x: 0, y: 16 + n * HEIGHT }, page.t("row", { n: n + 1 })),
    bar: svg("rect", { class: "p", x: "18%", y: 5 + n * HEIGHT, height: 13, rx: 2 }),
    number: svg("text", { x: "100%", y: 16 + n * HEIGHT, "text-anchor": "end" }),
  }));
  const parts = rows.map(({ name, bar, number }) => [name, bar, number]);
  const title = page.t("lossesFigure");
  const { node, tell } = figure("losses", title, rows.length * HEIGHT + 4, ...parts.flat());
  const update = (found) => {
    const most = Math.max(1, ...found.rows.map((row) => row.loss));
    rows.forEach(({ bar, number }, n) => {
      put(bar, { width: percent((0.6 * found.rows[n].loss) / most) });
      showNumber(number, found.rows[n].loss);
    });
    const [a, b, c] = found.rows.map((row) => shown(row.loss));
    tell(page.t("lossesTold", { a, b, c }));
  };
  return { node, update };
}

/** The loss after each step, as a line. */
function history(page) {
  const path = svg("polyline", { class: "path", points: "" });
  const drawing = svg("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none" }, path);
  put(drawing, { width: "100%", height: "100%", "aria-hidden": "true" });
  const { node, tell } = figure("history", page.t("historyFigure"), 48, drawing);
  const update = (losses) => {
    const [most, least] = [Math.max(...losses), Math.min(0, ...losses)];
    const points = losses.map((loss, i) => {
      const height = most > least ? (loss - least) / (most - least) : 0;
      return `${(100 * i) / Math.max(1, losses.length - 1)},${38 - 36 * height}`;
    });
    put(path, { points: points.join(" ") });
    const [first, last] = [losses[0], losses.at(-1)].map(shown);
    tell(page.t("historyTold", { n: losses.length - 1, first, last }));
    node.style.display = losses.length > 1 ? "" : "none";
  };
  return { node, update };
}

/** The sum and what it is divided by, in numbers. */
function written(state, found, t) {
  const kept = found.rows.map((_, n) => n).filter((n) => !state.ignored[n]);
  const sum = kept.map((n) => shown(found.rows[n].loss)).join(" + ") || "0";
  const weights = kept.map((n) => typed(found.rows[n].rowWeight)).join(" + ") || "0";
  const divided = state.reduction === "mean" ? `(${sum}) / (${weights})` : sum;
  return `${divided} = ${shown(found.loss)} ${t("nats")}`;
}

/** The card of the result. */
export function result(page) {
  const { t, state } = page;
  const name = el("h3", { id: "result" });
  const number = el("output", { id: "loss", class: "large" });
  const sum = el("p", { id: "written", class: "written" });
  const note = el("p", { class: "note" });
  const [bars, line] = [losses(page), history(page)];
  const unit = el("span", { class: "unit" }, t("nats"));
  const node = el(
    "section",
    { class: "result card", "aria-labelledby": "result" },
    el("div", {}, name, el("p", {}, number, " ", unit), sum, note),
    el("div", {}, bars.node),
    line.node,
  );
  const update = (found) => {
    const { reduction, ignored } = state();
    name.textContent = reduction === "none" ? t("resultNone") : `${t("result")} (${t(reduction)})`;
    showNumber(number, found.loss);
    sum.textContent = written(state(), found, t);
    note.textContent = ignored.every(Boolean) && reduction === "mean" ? t("allIgnored") : "";
    bars.update(found);
    line.update(page.history());
  };
  return { node, update };
}

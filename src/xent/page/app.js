// The page: its state, drawn anew where its parts change and brought up to date where numbers do.

import { batchPanel } from "./batch.js";
import { codePanel } from "./copy.js";
import { distributionsPanel } from "./distributions.js";
import { el, shown } from "./dom.js";
import en from "./en.js";
import ko from "./ko.js";
import { batchLoss } from "./math.js";
import { formatsPanel } from "./narrow.js";
import { LANGUAGES, example, read, write } from "./state.js";

const TEXTS = { en, ko };
const NAMES = { en: "English", ko: "한국어" };
const SETTLED = 300; // ms without a change before the address is written and the summary spoken
const OF_BATCH = ["logits", "target", "ignored", "weight", "temperature", "smoothing", "zLoss"];

const asked = start();

let state = read(location.hash, asked);
let steps = [taken()]; // logits and loss before the first step and after each
let panels = [];
let timer = 0;

/** What `xent explore` was asked for, on top of the example in the browser's language. */
function start() {
  const language = navigator.language.startsWith("ko") ? "ko" : "en";
  return read(document.body.dataset.state, { ...example(), language });
}

function taken() {
  return { logits: state.logits, loss: batchLoss(state).loss };
}

function t(key, values = {}) {
  const text = TEXTS[state.language][key];
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** What decides which elements there are. */
const shape = () => [state.language, state.weight.length, state.p.length].join();

function set(changes, { step = false } = {}) {
  const before = shape();
  state = { ...state, ...changes };
  if (step) steps.push(taken());
  else if ([...OF_BATCH, "reduction"].some((name) => name in changes)) steps = [taken()];
  if (shape() === before) update();
  else draw();
}

function undo() {
  state = { ...state, logits: steps[0].logits };
  steps = [taken()];
  update();
  document.getElementById("step").focus(); // the button that was pressed is switched off
}

const page = {
  t,
  set,
  undo,
  state: () => state,
  history: () => steps.map(({ loss }) => loss),
};

function languages() {
  const buttons = LANGUAGES.map((language) =>
    el(
      "button",
      {
        type: "button",
        id: `language-${language}`,
        lang: language,
        "aria-pressed": String(language === state.language),
        onclick: () => set({ language }),
      },
      NAMES[language],
    ),
  );
  return el("div", { class: "languages", role: "group", "aria-label": t("language") }, buttons);
}

function draw() {
  const focused = document.activeElement?.id;
  document.documentElement.lang = state.language;
  document.title = `xent explore: ${t("title")}`;
  panels = [batchPanel, formatsPanel, distributionsPanel, codePanel].map((panel) => panel(page));
  const head = el("div", {}, el("h1", {}, t("title")), el("p", { class: "lead" }, t("lead")));
  document
    .getElementById("page")
    .replaceChildren(
      el("header", { class: "top" }, head, languages()),
      el("main", {}, panels.map(({ node }) => node)),
    );
  update();
  if (focused) document.getElementById(focused)?.focus();
}

function update() {
  for (const panel of panels) panel.update();
  clearTimeout(timer);
  timer = setTimeout(settle, SETTLED);
}

function settle() {
  const hash = write(state, asked);
  if (hash !== location.hash.slice(1)) history.replaceState(null, "", `#${hash}`);
  const found = batchLoss(state);
  const [a, b, c] = found.rows.map((row) => shown(row.loss));
  const told = t("summary", { loss: shown(found.loss), a, b, c });
  document.getElementById("summary").textContent = told;
}

addEventListener("hashchange", () => {
  if (location.hash.slice(1) === write(state, asked)) return;
  state = read(location.hash, asked);
  steps = [taken()];
  draw();
});

draw();

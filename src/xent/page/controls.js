// The controls that change one part of the state: native inputs, each with its label.

import { el, typed } from "./dom.js";
import { RANGES, fits } from "./state.js";

let counted = 0;

/** A slider with a number field beside it; `label` is seen, `spoken` is what both are called. */
export function slider({ id, name, label, spoken = label, get, set }) {
  const { least, most, step } = RANGES[name];
  const range = el("input", {
    type: "range",
    id,
    min: least,
    max: most,
    step,
    "aria-label": spoken,
    oninput: () => set(range.valueAsNumber),
  });
  const field = el("input", {
    type: "number",
    id: `${id}-number`,
    step: "any",
    "aria-label": spoken,
    oninput: () => {
      const good = fits(name, field.valueAsNumber);
      field.setAttribute("aria-invalid", String(!good));
      if (good) set(field.valueAsNumber);
    },
    onblur: () => {
      field.removeAttribute("aria-invalid");
      field.value = typed(get());
    },
  });
  const update = () => {
    range.value = get();
    if (document.activeElement !== field) field.value = typed(get());
  };
  const caption = label === null ? null : el("label", { for: id }, label);
  return { node: el("div", { class: "slider" }, caption, range, field), range, field, update };
}

/** The slider of a number of the state that has the slider's name. */
export function numberSlider({ t, state, set }, name) {
  const change = (value) => set({ [name]: value });
  return slider({ id: name, name, label: t(name), get: () => state()[name], set: change });
}

/** The integers from the least to the most. */
export const counts = ({ least, most }) =>
  Array.from({ length: most - least + 1 }, (_, i) => least + i);

/** One of few values, as radio buttons. */
export function choice({ id, label, values, text, get, set }) {
  const group = `${id}-${(counted += 1)}`; // a page that is drawn again must not share groups
  const buttons = values.map((value) =>
    el("input", { type: "radio", name: group, id: `${id}-${value}`, onchange: () => set(value) }),
  );
  const labels = buttons.map((button, i) => el("label", {}, button, text(values[i])));
  const node = el("fieldset", { class: "choice" }, el("legend", {}, label), labels);
  const update = () => buttons.forEach((button, i) => (button.checked = values[i] === get()));
  return { node, update };
}

/** One of many values, as a list. */
export function selection({ id, label, values, text = String, get, set }) {
  const options = values.map((value) => el("option", { value }, text(value)));
  const list = el("select", { id, onchange: () => set(values[list.selectedIndex]) }, options);
  const node = el("label", { class: "selection" }, label, list);
  return { node, update: () => (list.selectedIndex = values.indexOf(get())) };
}

/** A tick box. */
export function tick({ id, label, spoken, get, set }) {
  const attributes = { type: "checkbox", id, "aria-label": spoken };
  const box = el("input", { ...attributes, onchange: () => set(box.checked) });
  const node = el("label", { class: "tick" }, box, label);
  return { node, update: () => (box.checked = get()) };
}

export const button = (id, label, press) =>
  el("button", { type: "button", id, onclick: press }, label);

// The last panel: the batch as NumPy or torch code, shown and copied.

import { numpy, torch } from "./code.js";
import { button } from "./controls.js";
import { el } from "./dom.js";

const WRITERS = { numpy, torch };

/** Whether the text of a node was copied; where it was not, it is left selected. */
async function toClipboard(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    // refused, or a browser that has no such clipboard for a page from a file: the older way
    getSelection().selectAllChildren(node);
    return document.execCommand("copy");
  }
}

export function codePanel(page) {
  const { t, state } = page;
  const code = el("code", { id: "code" });
  const shown = el("pre", { tabindex: 0, role: "region", "aria-label": t("codeShown") }, code);
  const told = el("p", { id: "copied", class: "note", role: "status" });
  let library = "numpy";
  const copy = async (name) => {
    library = name;
    update();
    told.textContent = t((await toClipboard(code)) ? "copied" : "select");
  };
  const buttons = [
    button("copy-numpy", t("copyNumpy"), () => copy("numpy")),
    button("copy-torch", t("copyTorch"), () => copy("torch")),
  ];
  const update = () => {
    const text = WRITERS[library](state());
    if (code.textContent !== text) [code.textContent, told.textContent] = [text, ""];
  };
  const node = el(
    "section",
    { class: "panel", "aria-labelledby": "code-title" },
    el("h2", { id: "code-title" }, t("code")),
    el("p", { class: "lead" }, t("codeLead")),
    el("div", { class: "buttons" }, buttons, told),
    shown,
    el("p", { class: "note" }, t("address")),
  );
  return { node, update };
}

// The formulas of the page as MathML, built of a few short pieces.

import { el } from "./dom.js";

const i = (name) => `<mi>${name}</mi>`;
const o = (sign) => `<mo stretchy="false">${sign}</mo>`;
const sub = (name, index) => `<msub>${i(name)}${i(index)}</msub>`;
const over = (top, bottom) => `<mfrac><mrow>${top}</mrow><mrow>${bottom}</mrow></mfrac>`;
const sum = (under) => `<munder>${o("∑")}<mrow>${under}</mrow></munder>`;
const group = (...parts) => o("(") + parts.join("") + o(")");
const of = (name, ...parts) => i(name) + group(...parts);
const thin = "<mspace width='0.2em'></mspace>";

const zLoss = i("ζ") + thin + sub("w", "y") + thin;
const relative = (index) => sub("x", index) + o("−") + sub("x", "k");

const MARKUP = {
  loss: [
    sub("ℓ", "n"),
    o("="),
    sum(i("c")),
    sub("t", "c"),
    group(i("lse"), o("−"), over(sub("x", "c"), i("T"))),
    o("+"),
    zLoss,
    `<msup>${i("lse")}<mn>2</mn></msup>`,
  ],
  gradient: [
    over(o("∂") + i("L"), o("∂") + sub("x", "c")),
    o("="),
    over("<mn>1</mn>", i("D") + thin + i("T")),
    group(
      i("m") + thin + sub("p", "c") + o("−") + sub("t", "c"),
      o("+") + "<mn>2</mn>" + zLoss + i("lse") + thin + sub("p", "c"),
    ),
  ],
  mass: [i("m"), o("="), sum(i("c")), sub("t", "c")],
  naive: [
    o("−"),
    i("log"),
    over(of("exp", sub("x", "y")), sum(i("c")) + of("exp", sub("x", "c"))),
  ],
  stable: [
    of("log1p", sum(i("c") + o("≠") + i("k")), of("exp", relative("c"))),
    o("−"),
    group(relative("y")),
  ],
  identity: [
    of("H", i("p"), o(","), i("q")),
    o("="),
    o("−"),
    sum(i("i")),
    sub("p", "i"),
    i("log") + thin + sub("q", "i"),
    o("="),
    of("H", i("p")),
    o("+"),
    of("KL", i("p"), o("‖"), i("q")),
  ],
};

/** A formula by its name. */
export function formula(name) {
  const node = el("div", { class: "formula" });
  node.innerHTML = `<math display="block">${MARKUP[name].join("")}</math>`;
  return node;
}

// Elements, figures and the numbers in them.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

/** An HTML element: `on...` attributes listen, true is an attribute without a value. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** A figure that is named and, by `tell`, described to a screen reader. */
export function figure(id, title, height, ...children) {
  const described = svg("desc", { id: `${id}-desc` });
  const node = svg(
    "svg",
    { id, role: "img", "aria-labelledby": `${id}-title ${id}-desc`, width: "100%", height },
    svg("title", { id: `${id}-title` }, title),
    described,
    ...children,
  );
  return { node, tell: (text) => (described.textContent = text) };
}

/** Set the attributes of an element that is there. */
export function put(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

/** A length in percent of the figure's width. */
export const percent = (share) => `${(100 * share).toFixed(3)}%`;

/** A number as it is read: four decimals, or three digits and a power of ten. */
export function shown(value) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const far = size !== 0 && (size < 1e-3 || size >= 1e5);
  const text = far ? value.toExponential(2) : value.toFixed(4);
  return text.replace(/-/g, "−");
}

/** A number as it is typed: short, and without the noise of its last digits. */
export const typed = (value) => String(Number(value.toPrecision(5)));

/** Show a number, and keep all its digits beside it. */
export function showNumber(node, value) {
  node.textContent = shown(value);
  node.dataset.value = String(value);
}

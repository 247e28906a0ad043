// Elements, built without markup: words only ever become text nodes, so nothing a person or a model says is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. properties: attributes; "on..." functions listen; true and false set and leave out. children: nodes, text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** One of the drawings at the end of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon and words, or with an icon alone (`label` is then what is read aloud). */
export function button(words, { glyph, label, onclick, ...rest } = {}) {
  const children = [glyph ? icon(glyph) : null, words || null];
  return el("button", { type: "button", "aria-label": label, title: label, onclick, ...rest }, ...children);
}

/** The element that index.html marks with data-part="name" inside `root`. */
export function part(root, name) {
  return root.querySelector(`[data-part="${name}"]`);
}

let count = 0;

/** An id no other element has. */
export function freshId(prefix) {
  count += 1;
  return `${prefix}-${count}`;
}

// The grid of codes as the model fills it in: which places hold a draft, how sure it is of each, which are final.

import { el } from "../dom.js";

const READABLE = 12; // a grid of more columns has no room for figures

/** A grid. show(event): the state after one step of `llada.progress` with stage "codes". */
export function createCodes() {
  const root = el("div", { class: "codes", role: "img", "aria-label": "The picture as it is composed, place by place", hidden: true });

  function build([rows, columns]) {
    root.style.setProperty("--rows", rows);
    root.style.setProperty("--columns", columns);
    root.style.setProperty("--gap", columns > READABLE ? "1px" : "2px");
    root.classList.toggle("dense", columns > READABLE);
    root.replaceChildren(...Array.from({ length: rows * columns }, () => el("div", { class: "code" })));
  }

  return {
    root,
    show({ grid, codes, settled, confidences }) {
      if (root.childElementCount !== grid[0] * grid[1]) build(grid);
      root.hidden = false;
      [...root.children].forEach((cell, place) => {
        const known = codes[place] !== null && codes[place] >= 0;
        cell.textContent = known ? codes[place] : "";
        cell.className = `code ${settled[place] ? "settled" : known ? "draft" : ""}`;
        cell.style.setProperty("--sureness", sureness(confidences[place]));
      });
    },
  };
}

/** Confidences are mostly near 1: the color spends its range where they differ. */
function sureness(confidence) {
  return (Math.max(0, Math.min(1, confidence ?? 0)) ** 2).toFixed(3);
}

/** What the colors mean. */
export function codesLegend() {
  return el("p", { class: "scale" }, "unsure", el("i"), "sure", el("span", {}, "· faint: may still change, full: settled"));
}

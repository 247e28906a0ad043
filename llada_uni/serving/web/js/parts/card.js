// One picture, from the first masked place to the finished pixels.

import { button, el } from "../dom.js";
import { image } from "../pictures/files.js";
import { createCodes } from "./codes.js";

/** A card. progress(event), partial(url) and think(text) while it comes about; finish(...) when it is there. */
export function createCard() {
  const codes = createCodes();
  const frame = el("div", { class: "frame waiting" }, codes.root);
  const thought = el("p", { class: "arriving" });
  const thinking = el("details", { class: "thinking", open: true, hidden: true }, el("summary", {}, "Thinking"), thought);
  const root = el("figure", { class: "card" }, frame, thinking);

  return {
    root,

    progress(event) {
      if (event.stage === "codes") codes.show(event);
      frame.classList.toggle("decoding", event.stage === "decode");
    },

    partial(url) {
      const forming = frame.querySelector("img") ?? el("img", { class: "forming", alt: "Partial picture" });
      forming.src = url;
      frame.prepend(forming);
    },

    think(text) {
      thinking.hidden = false;
      thought.textContent = text;
    },

    /** picture: the result; alt: what it shows; rest: further children, such as its facts and actions. */
    finish(picture, alt, ...rest) {
      const drawn = codes.root.childElementCount > 0;
      codes.root.hidden = true;
      frame.className = "frame";
      frame.replaceChildren(image(picture, alt), codes.root);
      root.replaceChildren(frame, ...rest.filter(Boolean));
      if (drawn) root.querySelector(".actions")?.append(codesButton(codes.root));
    },
  };
}

/** Lays the codes over the finished picture, and takes them away again. */
function codesButton(grid) {
  const toggle = button("Codes", { glyph: "grid", class: "small", "aria-pressed": "false", onclick: () => {
    grid.hidden = !grid.hidden;
    toggle.setAttribute("aria-pressed", String(!grid.hidden));
  } });
  return toggle;
}

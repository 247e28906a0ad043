// One picture, from the first masked place to the finished pixels.

import { button, el } from "../dom.js";
import { image } from "../pictures/files.js";
import { createCodes } from "./codes.js";

const SMALL = 320; // pictures up to this width are shown larger than they are: smooth, or pixel by pixel

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
      const actions = root.querySelector(".actions");
      if (picture.width <= SMALL) actions?.append(toggle("Pixel by pixel", "pixels", (on) => frame.classList.toggle("sharp", on)));
      if (drawn) actions?.append(toggle("Show how it was composed", "grid", (on) => { codes.root.hidden = !on; }));
    },
  };
}

/** A button that stays pressed; show(on) hears of each change. */
function toggle(label, glyph, show) {
  const node = button(null, { glyph, label, class: "small", "aria-pressed": "false", onclick: () => {
    const on = node.getAttribute("aria-pressed") === "false";
    node.setAttribute("aria-pressed", String(on));
    show(on);
  } });
  return node;
}

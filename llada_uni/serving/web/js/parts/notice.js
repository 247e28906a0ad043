// What went wrong, where a person looks for the result: one line, read aloud, with a way to try again.

import { button, el } from "../dom.js";
import { inWords } from "../failures.js";

/** A place for notices. show(error, again): `again`, if given, is offered as a button. */
export function createNotice() {
  const root = el("div", { role: "alert" });
  return {
    root,
    show(error, again) {
      root.replaceChildren(el("div", { class: "notice" }, el("p", {}, inWords(error)),
        again ? button("Try again", { glyph: "again", class: "small", onclick: again }) : null));
    },
    clear() {
      root.replaceChildren();
    },
  };
}

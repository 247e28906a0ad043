// Words as they settle: never taken back, so they are only ever added to.

import { el } from "../dom.js";

export const EMPTY = "The model gave no answer. Ask in other words, or show another picture.";

/** A paragraph of the class `kind` that fills up. */
export function createWords(kind) {
  const root = el("p", { class: `${kind} arriving` });
  const words = {
    root,
    get text() {
      return root.classList.contains("nothing") ? "" : root.textContent.trim();
    },
    add(more) {
      root.append(more);
    },
    end() {
      root.classList.remove("arriving");
      root.textContent = root.textContent.trim();
    },

    /** Says so where an answer has no words. */
    sayWhenEmpty() {
      if (words.text) return;
      root.classList.add("nothing");
      root.textContent = EMPTY;
    },

    /** Takes the words of an answer without pictures. */
    async follow(events, progress) {
      for await (const event of events) {
        if (event.kind === "progress") progress.step(event, 1);
        if (event.kind === "text") words.add(event.text);
      }
      words.end();
    },
  };
  return words;
}

// The seed of a mode: new for each run, or held. The same seed with the same words and settings gives the same result.

import { button, el } from "../dom.js";
import { Mistake } from "../failures.js";

const LARGEST = 2 ** 31; // of seeds drawn here; a person may type larger ones

/** Fills `root`. next(): the seed of the run that starts now; hold(seed): this one from now on. */
export function createSeed(root) {
  const held = el("input", { type: "checkbox" });
  const number = el("input", { type: "number", min: "0", max: String(Number.MAX_SAFE_INTEGER), step: "1",
    inputmode: "numeric", "aria-label": "Seed", placeholder: "new each time" });
  const dice = button(null, { glyph: "dice", label: "Another seed, and hold it (G)", class: "dice", onclick: roll });
  const copy = button(null, { glyph: "copy", label: "Copy the seed", onclick: () => navigator.clipboard.writeText(number.value) });
  root.append(
    el("div", { class: "row apart field-head" }, el("span", {}, "Seed"), el("label", { class: "switch" }, held, el("span", {}, "Hold"))),
    el("div", { class: "row middle" }, number, dice, copy));

  function hold(seed) {
    held.checked = true;
    number.value = seed;
    copy.disabled = false;
  }

  function roll() {
    hold(Math.floor(Math.random() * LARGEST));
  }

  number.addEventListener("input", () => {
    held.checked = number.value !== "";
    copy.disabled = number.value === "";
  });
  held.addEventListener("change", () => {
    if (held.checked && number.value === "") roll();
  });
  copy.disabled = true;

  return {
    hold,
    roll,
    /** The field as it stands, for `recall` to bring back. */
    draft: () => ({ held: held.checked, number: number.value }),
    recall(draft) {
      held.checked = draft.held;
      number.value = draft.number;
      copy.disabled = draft.number === "";
    },
    next() {
      if (!held.checked) number.value = Math.floor(Math.random() * LARGEST);
      copy.disabled = false;
      if (!number.checkValidity()) {
        number.focus();
        throw new Mistake(`A seed is a whole number from 0 to ${Number.MAX_SAFE_INTEGER}.`);
      }
      return Number(number.value);
    },
  };
}

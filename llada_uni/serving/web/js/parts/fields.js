// Reading fields of a form, with a sentence for what does not fit.

import { Mistake } from "../failures.js";

/** The whole number in an input. Throws a Mistake that says what is allowed. */
export function wholeNumber(input, name) {
  input.setAttribute("aria-invalid", String(!input.validity.valid || input.value === ""));
  if (input.validity.valid && input.value !== "") return Number(input.value);
  input.focus();
  throw new Mistake(`${name} must be a whole number from ${input.min} to ${input.max}.`);
}

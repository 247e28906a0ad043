// Prompts that suit the shipped model's small world: 100 things and ten digits, three styles of emoji art, eight backgrounds, nine places.

import { button, el } from "../dom.js";

const EXAMPLES = {
  draw: ["a cat and a dog on green", "seven 3d strawberries on blue", "the number 407 above three 3d balloons",
    "cartoon lion top left, flat unicorn top right, 3d dragon middle center on pink"],
  think: ["two plus three flat lemons", "the animal that says quack in 3d style", "the number after 2, 4, 6"],
  ask: ["what is at the top left?", "how many dogs are there?", "which color is the background?", "describe the picture"],
  edit: ["make the background pink", "add a lemon at the top right", "remove the dog", "replace the cat with a fox"],
  brush: ["a cat and an apple on green", "a cartoon cat top left, cartoon apple bottom left on green"],
  chat: ["what is at the top left?", "which style is it?", "how many dogs are there?"],
  "chat with pictures": ["make the background pink", "move the cat to the top right"],
  story: ["tell a story about mia the bear and leo the penguin by the sea in cartoon style in four pictures",
    "tell a story about a cat and a dog in the park", "a story about zoe the lion in 3d style in three pictures"],
};

/** Fills `root` with the examples of `kind`; one that is chosen goes to onchoose. Returns a function that shows another kind. */
export function createExamples(root, kind, onchoose) {
  const chips = el("div", { class: "chips", role: "group", "aria-label": "Examples" });
  root.append(chips);
  function show(other) {
    chips.replaceChildren(...EXAMPLES[other].map((words) => button(words, { onclick: () => onchoose(words) })));
  }
  show(kind);
  return show;
}

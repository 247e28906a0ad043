// Prompts that suit the shipped model's small world: 40 things, three styles of emoji art, six backgrounds, four places.

import { button, el } from "../dom.js";

const EXAMPLES = {
  draw: ["a cat and a dog on green", "a flat owl and a flat panda on yellow", "two cartoon bears on pink",
    "a cartoon fox at the top left and a cartoon cactus at the bottom right on pink"],
  think: ["two plus one flat lemons", "the animal that says quack in 3d style", "a car at the opposite of the top left on blue"],
  ask: ["what is at the top left?", "how many things are there?", "which color is the background?", "describe the picture"],
  edit: ["make the background pink", "add a lemon at the top right", "remove the dog", "replace the cat with a fox"],
  brush: ["a cat and an apple on green", "a cartoon cat top left, cartoon apple bottom left on green"],
  chat: ["what is at the top left?", "which style is it?", "how many things are there?"],
  "chat with pictures": ["make the background pink", "move the cat to the top right"],
  story: ["tell a story about a bear and a penguin by the sea in cartoon style", "tell a story about a cat and a dog in the park",
    "a story about a lion and a bee in 3d style"],
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

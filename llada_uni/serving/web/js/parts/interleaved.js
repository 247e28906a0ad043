// Words and pictures in the order they come: each sentence with the picture that follows it.

import { el } from "../dom.js";
import { createCard } from "./card.js";
import { createWords, EMPTY } from "./words.js";

/**
 * Fills `root` with scenes. about: what a picture shows, to be read aloud; under(picture): what stands under each;
 * look: the class of the words.
 */
export function createInterleaved(root, about, under, look = "said") {
  const results = []; // {text} and {picture}, in order
  let scene = null;

  /** The scene that still comes about: words, then a card. */
  function open() {
    if (scene) return scene;
    scene = { node: el("div", { class: "scene" }), words: createWords(look), card: null };
    scene.node.append(scene.words.root);
    root.append(scene.node);
    return scene;
  }

  function card() {
    const { node, words } = open();
    words.end();
    scene.card ??= createCard();
    node.prepend(scene.card.root); // the words stand under their picture
    return scene.card;
  }

  function closeWords() {
    if (!scene) return;
    scene.words.end();
    if (scene.words.text) results.push({ text: scene.words.text });
    else scene.words.root.remove();
  }

  function take(event) {
    if (event.kind === "text") open().words.add(event.text);
    else if (event.kind === "progress" && event.stage !== "text") card().progress(event);
    else if (event.kind === "partial") card().partial(event.url);
    else if (event.kind === "picture") {
      const shown = card();
      closeWords();
      results.push({ picture: event.picture, seed: event.seed });
      shown.finish(event.picture, scene.words.text || about, scene.words.root, ...under(event.picture));
      scene = null;
    }
  }

  return {
    results,

    /** Takes an answer as it arrives; what has arrived stays when it breaks off. */
    async follow(events, progress) {
      try {
        for await (const event of events) {
          if (event.kind === "progress") progress.step(event, 1);
          take(event);
        }
      } finally {
        scene?.card?.root.remove();
        closeWords();
      }
      if (!results.length) root.append(el("p", { class: "nothing" }, EMPTY));
    },

    /** Shows results that are there already. */
    show(pieces) {
      for (const piece of pieces) take({ kind: piece.picture ? "picture" : "text", ...piece });
      closeWords();
    },
  };
}

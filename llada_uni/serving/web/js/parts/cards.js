// Pictures that come about side by side: events of a drawing -> cards -> the finished results, which the history keeps.

import { el } from "../dom.js";
import { createActions, factsOf, noticesOf, thinkingFold } from "./actions.js";
import { createCard } from "./card.js";
import { codesLegend } from "./codes.js";

/** What the cards of a mode are made with. about: what was asked for; again(): runs the same once more. */
export function createCards(studio, root, about, again) {
  function finish(card, { picture, seed, thinking, notices }, seconds) {
    const own = { ...about, seed, thinking: thinking ?? undefined };
    card.finish(picture, about.prompt, factsOf(picture, seed, seconds), ...noticesOf(notices), thinking ? thinkingFold(thinking) : null,
      createActions(studio, picture, own, again));
  }

  function place(count) {
    const cards = Array.from({ length: count }, () => createCard());
    const box = el("div", { class: count === 1 ? "cards one" : "cards" }, ...cards.map((card) => card.root));
    return { cards, box };
  }

  return {
    /** Shows `count` pictures coming about; resolves to [{picture, seed, thinking, notices}]. What was shown before comes back
     *  when none is finished in the end. */
    async follow(events, count, progress) {
      const before = [...root.childNodes];
      const { cards, box } = place(count);
      const legend = codesLegend();
      const thoughts = Array.from({ length: count }, () => "");
      const results = [];
      root.replaceChildren(box, legend);
      try {
        for await (const event of events) {
          const card = cards[event.index];
          if (event.kind === "progress") {
            progress.step(event, count);
            card.progress(event);
          } else if (event.kind === "partial") {
            card.partial(event.url);
          } else if (event.kind === "thinking") {
            thoughts[event.index] += event.text;
            card.think(thoughts[event.index]);
          } else {
            results[event.index] = event;
            finish(card, event, progress.seconds);
          }
        }
      } finally {
        legend.remove();
        cards.forEach((card, index) => results[index] || card.root.remove());
        if (!box.childElementCount) root.replaceChildren(...before);
      }
      return results.map(({ picture, seed, thinking, notices }) => ({ picture, seed, thinking, notices }));
    },

    /** Shows results that are there already. */
    show(results) {
      const { cards, box } = place(results.length);
      root.replaceChildren(box);
      results.forEach((result, index) => finish(cards[index], result));
    },
  };
}

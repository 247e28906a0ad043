// Ask: a picture and a question -> an answer in words. Answers about one picture gather, the newest first.

import { el, part } from "../dom.js";
import { Mistake } from "../failures.js";
import { image } from "../pictures/files.js";
import { createSlots, takeDropsAndPastes } from "../pictures/slots.js";
import { createWorkbench } from "../parts/workbench.js";
import { createWords } from "../parts/words.js";
import { messageOf } from "../server/messages.js";
import { answer } from "../server/requests.js";

export function createAsk(studio) {
  const bench = createWorkbench(studio, "ask", {
    settings: ["understand"],
    empty: "Give a picture, one of your own results for a start, and ask what stands where, how many there are, or what it shows.",
    work,
  });
  const slots = createSlots(part(bench.form, "pictures"), { most: studio.defaults.mostPictures, complain: bench.complain });
  takeDropsAndPastes(bench.panel, slots);

  async function work({ prompt, seed, settings, signal, progress }) {
    const inputs = slots.pictures;
    if (!inputs.length) throw new Mistake("There is no picture to ask about yet: choose one, drop it here, or paste it.");
    const messages = [messageOf({ role: "user", text: prompt, pictures: inputs })];
    const { words, node } = exchange(inputs, prompt);
    showFirst(node);
    try {
      await words.follow(answer(studio.client, { ...studio.request, messages, seed, ...settings }, signal), progress);
      words.sayWhenEmpty();
    } catch (error) {
      node.remove();
      throw error;
    }
    const results = [{ text: words.text }];
    await studio.history.keep(
      { mode: "ask", prompt, seed, settings, fields: {}, inputs, mask: null, seconds: progress.seconds, results }, inputs[0]);
  }

  function showFirst(node) {
    const others = [...bench.result.children].filter((child) => child.matches(".exchange"));
    bench.result.replaceChildren(node, ...others);
  }

  return {
    ...bench,
    take: (picture) => slots.set([picture]),
    restore(entry) {
      bench.restore(entry);
      slots.set(entry.inputs);
      const { words, node } = exchange(entry.inputs, entry.prompt);
      words.add(entry.results[0].text);
      words.end();
      words.sayWhenEmpty();
      showFirst(node);
    },
  };
}

/** A question beside its picture, with room for the answer. */
function exchange(pictures, question) {
  const words = createWords("said");
  const about = el("div", { class: "about" }, ...pictures.map((picture) => image(picture, "Picture that was asked about")));
  const node = el("article", { class: "exchange" }, about,
    el("div", { class: "words" }, el("p", { class: "asked" }, question), words.root));
  return { words, node };
}

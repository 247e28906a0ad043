// Ask: a picture and a question -> an answer in words. Answers about one picture gather, the newest first.

import { el, part } from "../dom.js";
import { Mistake } from "../failures.js";
import { image } from "../pictures/files.js";
import { createSlots, takeDropsAndPastes } from "../pictures/slots.js";
import { createWorkbench } from "../parts/workbench.js";
import { createWords } from "../parts/words.js";
import { messageOf } from "../server/messages.js";
import { answered, toAnswer } from "../server/requests.js";

export function createAsk(studio) {
  const bench = createWorkbench(studio, "ask", {
    settings: ["understand"],
    empty: "Give a picture, one of your own results for a start, and ask what stands where, how many there are, or what it shows.",
    state: () => ({ fields: {}, inputs: slots.pictures, mask: null }),
    fill: (entry) => slots.set(entry.inputs),
    prepare,
    follow,
    show,
  });
  const slots = createSlots(part(bench.form, "pictures"),
    { most: studio.defaults.mostPictures, complain: bench.complain, onchange: bench.keepPictures });
  takeDropsAndPastes(bench.panel, slots);

  function prepare({ prompt, seed, settings }) {
    const inputs = slots.pictures;
    if (!inputs.length) throw new Mistake("There is no picture to ask about yet: choose one, drop it here, or paste it.");
    const messages = [messageOf({ role: "user", text: prompt, pictures: inputs })];
    const about = { settings, fields: {}, inputs, mask: null };
    return { about, ...toAnswer({ ...studio.request, messages, seed, ...settings }) };
  }

  async function follow(about, events, progress) {
    const { words, node } = exchange(about.inputs, about.prompt);
    showFirst(node);
    try {
      await words.follow(answered(events), progress);
      words.sayWhenEmpty();
    } catch (error) {
      node.remove();
      throw error;
    }
    return { entry: { ...about, results: [{ text: words.text }] }, face: about.inputs[0] };
  }

  function show(entry) {
    const { words, node } = exchange(entry.inputs, entry.prompt);
    words.add(entry.results[0].text);
    words.end();
    words.sayWhenEmpty();
    showFirst(node);
  }

  function showFirst(node) {
    const others = [...bench.result.children].filter((child) => child.matches(".exchange"));
    bench.result.replaceChildren(node, ...others);
  }

  return { ...bench, take: (picture) => slots.set([picture]) };
}

/** A question beside its picture, with room for the answer. */
function exchange(pictures, question) {
  const words = createWords("said");
  const about = el("div", { class: "about" }, ...pictures.map((picture) => image(picture, "Picture that was asked about")));
  const node = el("article", { class: "exchange" }, about,
    el("div", { class: "words" }, el("p", { class: "asked" }, question), words.root));
  return { words, node };
}

// Story: words -> sentences and pictures in turn, shown as they arrive.

import { el } from "../dom.js";
import { createActions, factsOf } from "../parts/actions.js";
import { createInterleaved } from "../parts/interleaved.js";
import { createWorkbench } from "../parts/workbench.js";
import { messageOf } from "../server/messages.js";
import { answer } from "../server/requests.js";

export function createStory(studio) {
  const bench = createWorkbench(studio, "story", {
    settings: ["story"],
    empty: "Say who the story is about. A sentence comes, then its picture, then the next sentence.",
    work,
  });

  async function work({ prompt, seed, settings, signal, progress }) {
    const about = { mode: "story", prompt, seed, settings, fields: {} };
    const messages = [messageOf({ role: "user", text: prompt, pictures: [] })];
    const request = { ...studio.request, messages, modalities: ["text", "image"], seed, ...settings, partial_images: 3 };
    const story = open(about);
    await story.follow(answer(studio.client, request, signal), progress);
    const { results } = story;
    const face = results.find((piece) => piece.picture)?.picture ?? null;
    await studio.history.keep({ ...about, inputs: [], mask: null, seconds: progress.seconds, results }, face);
  }

  function open(about) {
    const root = el("article", { class: "story" });
    bench.result.replaceChildren(root);
    const again = () => {
      bench.restore(about);
      bench.run();
    };
    return createInterleaved(root, about.prompt, (picture) =>
      [factsOf(picture, about.seed), createActions(studio, picture, about, again)]);
  }

  return {
    ...bench,
    restore(entry) {
      bench.restore(entry);
      open(entry).show(entry.results);
    },
  };
}

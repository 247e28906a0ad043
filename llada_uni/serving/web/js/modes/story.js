// Story: words -> sentences and pictures in turn, shown as they arrive.

import { el } from "../dom.js";
import { createActions, factsOf } from "../parts/actions.js";
import { createInterleaved } from "../parts/interleaved.js";
import { createWorkbench } from "../parts/workbench.js";
import { messageOf } from "../server/messages.js";
import { answered, toAnswer } from "../server/requests.js";

export function createStory(studio) {
  const bench = createWorkbench(studio, "story", {
    settings: ["story"],
    empty: "Say who the story is about. A sentence comes, then its picture, then the next sentence.",
    state: () => ({ fields: {}, inputs: [], mask: null }),
    fill: () => {},
    prepare,
    follow,
    show: (entry) => open(entry).show(entry.results),
  });

  function prepare({ prompt, seed, settings }) {
    const messages = [messageOf({ role: "user", text: prompt, pictures: [] })];
    const about = { settings, fields: {}, inputs: [], mask: null };
    return { about, ...toAnswer({ ...studio.request, messages, modalities: ["text", "image"], seed, ...settings, partial_images: 3 }) };
  }

  async function follow(about, events, progress) {
    const story = open(about);
    await story.follow(answered(events), progress);
    const { results } = story;
    return { entry: { ...about, results }, face: results.find((piece) => piece.picture)?.picture ?? null };
  }

  function open(about) {
    const root = el("article", { class: "story" });
    bench.result.replaceChildren(root);
    return createInterleaved(root, about.prompt, (picture) =>
      [factsOf(picture, about.seed), createActions(studio, picture, about, () => bench.again(about))]);
  }

  return bench;
}

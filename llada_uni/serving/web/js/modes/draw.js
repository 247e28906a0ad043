// Draw: words -> one or several pictures.

import { el, part } from "../dom.js";
import { createCards } from "../parts/cards.js";
import { wholeNumber } from "../parts/fields.js";
import { createWorkbench } from "../parts/workbench.js";
import { draw } from "../server/requests.js";

export function createDraw(studio) {
  const bench = createWorkbench(studio, "draw", {
    settings: ["draw"],
    empty: "Say what to draw. The codes of the picture settle here place by place, colored by how sure the model is.",
    work,
  });
  const { n, size, thinking } = bench.form.elements;
  n.max = studio.defaults.mostResults;
  size.append(...studio.defaults.sizes.map((words) => el("option", { value: words }, words.replace("x", " × "))));
  thinking.addEventListener("change", () => bench.showExamples(thinking.checked ? "think" : "draw"));

  bench.form.addEventListener("input", () => {
    part(bench.form, "alike").hidden = Number(n.value) < 2 || Number(bench.form.elements.temperature?.value) > 0;
  });

  async function work({ prompt, seed, settings, signal, progress }) {
    const fields = { n: wholeNumber(n, "The number of pictures"), size: size.value, thinking: thinking.checked };
    const about = { mode: "draw", prompt, seed, settings, fields };
    const events = draw(studio.client, { ...studio.request, prompt, seed, ...fields, ...settings }, signal);
    const results = await cardsOf(about).follow(events, fields.n, progress);
    await studio.history.keep({ ...about, inputs: [], mask: null, seconds: progress.seconds, results }, results[0].picture);
  }

  function cardsOf(about) {
    return createCards(studio, bench.result, about, () => {
      fill(about);
      bench.run();
    });
  }

  function fill(entry) {
    bench.restore(entry);
    n.value = entry.fields.n;
    size.value = entry.fields.size;
    thinking.checked = entry.fields.thinking;
  }

  return {
    ...bench,
    restore(entry) {
      fill(entry);
      cardsOf(entry).show(entry.results);
    },
  };
}

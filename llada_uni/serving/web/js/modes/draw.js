// Draw: words -> one or several pictures.

import { el, part } from "../dom.js";
import { createCards } from "../parts/cards.js";
import { wholeNumber } from "../parts/fields.js";
import { createWorkbench } from "../parts/workbench.js";
import { drawn, toDraw } from "../server/requests.js";

export function createDraw(studio) {
  const bench = createWorkbench(studio, "draw", {
    settings: ["draw"],
    empty: "Say what to draw. The picture comes together here, place by place; the color of a place says how sure the model is of it.",
    state: () => ({ fields: { n: n.value, size: size.value, thinking: thinking.checked }, inputs: [], mask: null }),
    fill,
    prepare,
    follow,
    show: (entry) => cardsOf(entry).show(entry.results),
  });
  const { n, size, thinking } = bench.form.elements;
  n.max = studio.defaults.mostResults;
  size.append(...studio.defaults.sizes.map(({ value, words }) => el("option", { value }, words)));
  thinking.addEventListener("change", showExamples);
  bench.form.addEventListener("input", showAlike);

  function showExamples() {
    bench.showExamples(thinking.checked ? "think" : "draw");
  }

  function showAlike() {
    part(bench.form, "alike").hidden = Number(n.value) < 2 || Number(bench.form.elements.temperature?.value) > 0;
  }

  function prepare({ prompt, seed, settings }) {
    const fields = { n: wholeNumber(n, "The number of pictures"), size: size.value, thinking: thinking.checked };
    const about = { settings, fields, inputs: [], mask: null };
    return { about, ...toDraw({ ...studio.request, prompt, seed, ...fields, ...settings }) };
  }

  async function follow(about, events, progress) {
    const results = await cardsOf(about).follow(drawn(events, about.fields.n), about.fields.n, progress);
    return { entry: { ...about, results }, face: results[0].picture };
  }

  function cardsOf(about) {
    return createCards(studio, bench.result, about, () => bench.again(about));
  }

  function fill({ fields }) {
    n.value = fields.n;
    if ([...size.options].some((option) => option.value === fields.size)) size.value = fields.size;
    thinking.checked = fields.thinking;
    showExamples();
    showAlike();
  }

  return bench;
}

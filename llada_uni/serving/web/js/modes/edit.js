// Edit: pictures and an instruction, or a picture, a painted mask and what the whole should show -> a picture.

import { part } from "../dom.js";
import { Mistake } from "../failures.js";
import { createBrush } from "../pictures/brush.js";
import { fromUrl } from "../pictures/files.js";
import { createSlots, takeDropsAndPastes } from "../pictures/slots.js";
import { createCards } from "../parts/cards.js";
import { createWorkbench } from "../parts/workbench.js";
import { edit } from "../server/requests.js";

const TASKS = { words: "edit", brush: "inpaint" };
const LABELS = { words: "Instruction", brush: "What the whole picture should show then" };

export function createEdit(studio) {
  const bench = createWorkbench(studio, "edit", {
    settings: ["edit", "inpaint"],
    empty: "Give a picture and say what should change. Further pictures are references. Or paint over a part of it: that part is drawn again.",
    work,
  });
  const { form } = bench;
  const brushRoot = part(form, "brush");
  const brush = createBrush(brushRoot);
  let painted = null; // the picture the brush is on
  const slots = createSlots(part(form, "pictures"),
    { most: studio.defaults.mostPictures, complain: bench.complain, onchange: openBrush });
  takeDropsAndPastes(bench.panel, slots);
  part(form, "way").addEventListener("change", showWay);

  function way() {
    return form.elements.way.value;
  }

  function showWay() {
    const groups = { words: "edit", brush: "brush" };
    part(form, "prompt-label").textContent = LABELS[way()];
    bench.showExamples(groups[way()]);
    bench.settings.use(TASKS[way()]);
    openBrush(slots.pictures);
  }

  function openBrush([first]) {
    brushRoot.hidden = way() !== "brush" || !first;
    if (brushRoot.hidden || first === painted) return;
    painted = first;
    brush.open(first);
  }

  async function work({ prompt, seed, settings, signal, progress }) {
    if (!slots.pictures.length) throw new Mistake("There is no picture yet: choose one, drop it here, or paste it.");
    const byBrush = way() === "brush";
    if (byBrush && brush.mask.empty) throw new Mistake("Nothing is painted yet: paint over the part that should be drawn again.");
    const inputs = byBrush ? slots.pictures.slice(0, 1) : slots.pictures;
    const mask = byBrush ? await fromUrl(brush.mask.toUrl()) : null;
    const about = { mode: "edit", prompt, seed, settings, fields: { way: way() }, inputs, mask };
    const request = { ...studio.request, prompt, seed, images: inputs.map(({ url }) => url), mask: mask?.url, ...settings };
    const results = await cardsOf(about).follow(edit(studio.client, request, signal), 1, progress);
    await studio.history.keep({ ...about, seconds: progress.seconds, results }, results[0].picture);
  }

  function cardsOf(entry) {
    const { inputs, mask, ...about } = entry;
    return createCards(studio, bench.result, about, async () => {
      await fill(entry);
      bench.run();
    });
  }

  async function fill(entry) {
    form.elements.way.value = entry.fields.way;
    slots.set(entry.inputs);
    showWay();
    bench.restore(entry);
    if (entry.mask) await brush.mask.load(entry.mask);
  }

  return {
    ...bench,
    take: (picture) => slots.set([picture]),
    async restore(entry) {
      await fill(entry);
      cardsOf(entry).show(entry.results);
    },
  };
}

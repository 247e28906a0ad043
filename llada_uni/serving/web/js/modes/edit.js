// Edit: pictures and an instruction, or a picture, a painted mask and what the whole should show -> a picture.

import { part } from "../dom.js";
import { Mistake } from "../failures.js";
import { createBrush } from "../pictures/brush.js";
import { createSlots, takeDropsAndPastes } from "../pictures/slots.js";
import { createCards } from "../parts/cards.js";
import { createWorkbench } from "../parts/workbench.js";
import { drawn, toEdit } from "../server/requests.js";

const TASKS = { words: "edit", brush: "inpaint" };
const LABELS = { words: "Instruction", brush: "What the whole picture should show then" };

export function createEdit(studio) {
  const bench = createWorkbench(studio, "edit", {
    settings: ["edit", "inpaint"],
    empty: "Give a picture and say what should change. Further pictures are references. Or paint over a part of it: that part is drawn again.",
    state: () => ({ fields: { way: way() }, inputs: slots.pictures, mask: painting() }),
    fill,
    prepare,
    follow,
    show: (entry) => cardsOf(entry).show(entry.results),
  });
  const { form } = bench;
  const brushRoot = part(form, "brush");
  const brush = createBrush(brushRoot, bench.keepPictures);
  let painted = null; // the picture the brush is on
  const slots = createSlots(part(form, "pictures"),
    { most: studio.defaults.mostPictures, complain: bench.complain, onchange: takePictures });
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

  function takePictures(pictures) {
    openBrush(pictures);
    bench.keepPictures();
  }

  /** What is painted, where there is a brush at work. */
  function painting() {
    return brushRoot.hidden || brush.mask.empty ? null : brush.mask.toPicture();
  }

  function openBrush([first]) {
    brushRoot.hidden = way() !== "brush" || !first;
    if (brushRoot.hidden || first === painted) return;
    painted = first;
    brush.open(first);
  }

  function prepare({ prompt, seed, settings }) {
    if (!slots.pictures.length) throw new Mistake("There is no picture yet: choose one, drop it here, or paste it.");
    const byBrush = way() === "brush";
    if (byBrush && brush.mask.empty) throw new Mistake("Nothing is painted yet: paint over the part that should be drawn again.");
    const inputs = byBrush ? slots.pictures.slice(0, 1) : slots.pictures;
    const mask = byBrush ? brush.mask.toPicture() : null;
    const about = { settings, fields: { way: way() }, inputs, mask };
    const body = { ...studio.request, prompt, seed, images: inputs.map(({ url }) => url), mask: mask?.url, ...settings };
    return { about, ...toEdit(body) };
  }

  async function follow(about, events, progress) {
    const results = await cardsOf(about).follow(drawn(events, 1), 1, progress);
    return { entry: { ...about, results }, face: results[0].picture };
  }

  function cardsOf(entry) {
    const { inputs, mask, ...about } = entry;
    return createCards(studio, bench.result, about, () => bench.again(entry));
  }

  async function fill({ fields, inputs, mask }) {
    form.elements.way.value = fields.way;
    slots.set(inputs);
    showWay();
    if (mask && !brushRoot.hidden) await brush.mask.load(mask);
  }

  return { ...bench, take: (picture) => slots.set([picture]) };
}

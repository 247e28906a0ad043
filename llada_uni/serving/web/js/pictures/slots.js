// The pictures a mode works on: chosen, dropped, pasted, or handed over from a result. Each can be taken away again.

import { button, el, icon } from "../dom.js";
import { filesIn, fromFile, image } from "./files.js";

/**
 * Fills `root` with picture slots. most: how many pictures fit; onchange(pictures) hears of every change; complain(error)
 * of files that are no pictures. `add` puts a picture in (the last one makes room when all slots are taken).
 */
export function createSlots(root, { most, onchange = () => {}, complain }) {
  const label = root.dataset.label;
  const file = el("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/gif", hidden: true,
    multiple: most > 1, "aria-label": label });
  const drop = button(null, { class: "drop", onclick: () => file.click() });
  drop.append(icon("plus"), el("span", {}, most > 1 ? "Add a picture" : "Choose a picture"),
    el("span", { class: "hint" }, "or drop it, or paste it"));
  const list = el("div", { class: "slots", role: "group", "aria-label": label });
  root.append(el("div", { class: "field" }, el("span", {}, label), list, file));
  let pictures = [];

  function show() {
    const slots = pictures.map((picture, place) => el("div", { class: "slot" },
      image(picture, `${label} ${place + 1}`),
      most > 1 ? el("span", { class: "badge number" }, String(place + 1)) : null,
      button(null, { glyph: "close", label: `Remove picture ${place + 1}`, onclick: () => remove(place) })));
    list.replaceChildren(...slots, ...(pictures.length < most ? [drop] : []));
    onchange(pictures);
  }

  function set(wanted) {
    pictures = wanted.slice(0, most);
    show();
  }

  function add(picture) {
    set([...pictures.slice(0, most - 1), picture]);
  }

  function remove(place) {
    set(pictures.filter((_, other) => other !== place));
    (list.querySelector("button") ?? drop).focus();
  }

  async function takeFiles(files) {
    for (const one of files) {
      try {
        add(await fromFile(one));
      } catch (error) {
        complain(error);
      }
    }
  }

  file.addEventListener("change", async () => {
    await takeFiles([...file.files]);
    file.value = ""; // the same file may be chosen again
  });
  show();
  return { add, set, takeFiles, get pictures() { return pictures; } };
}

/** Lets `panel` take pictures that are dropped on it, and pasted while it is shown. */
export function takeDropsAndPastes(panel, slots) {
  panel.addEventListener("dragover", (event) => {
    event.preventDefault();
    panel.classList.add("dropping");
  });
  panel.addEventListener("dragleave", () => panel.classList.remove("dropping"));
  panel.addEventListener("drop", (event) => {
    event.preventDefault();
    panel.classList.remove("dropping");
    slots.takeFiles(filesIn(event.dataTransfer));
  });
  document.addEventListener("paste", (event) => {
    const files = panel.hidden ? [] : filesIn(event.clipboardData);
    if (files.length) event.preventDefault();
    slots.takeFiles(files);
  });
}

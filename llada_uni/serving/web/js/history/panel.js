// The history beside the stage: small pictures, newest first; a click brings words, settings, seed and results back.

import { button, el } from "../dom.js";
import { Mistake } from "../failures.js";
import { dataUrl, thumbnail } from "../pictures/files.js";
import { pack, unpack } from "./entries.js";

/** The history of `store` in index.html's list. onopen(entry): a person wants an entry back. */
export async function createHistory(store, onopen) {
  const list = document.getElementById("history-list");
  const empty = document.getElementById("history-empty");
  const clear = document.getElementById("history-clear");
  let entries = await store.all();

  async function itemOf(entry) {
    const caption = `${entry.mode}: ${entry.prompt}`;
    const face = entry.thumbnail
      ? el("img", { src: await dataUrl(entry.thumbnail), alt: "", loading: "lazy" })
      : el("span", { class: "no-picture" }, textOf(entry));
    const open = el("button", { type: "button", title: `${caption}\n${new Date(entry.when).toLocaleString()}`,
      "aria-label": `Bring back ${caption}`, onclick: async () => onopen(await unpack(entry)) }, face, el("span", { class: "caption" }, caption));
    const remove = button(null, { glyph: "close", class: "delete", label: `Delete ${caption}`, onclick: () => forget(entry) });
    return el("li", { class: "past", "data-id": entry.id }, open, remove);
  }

  async function show() {
    list.replaceChildren(...await Promise.all(entries.map(itemOf)));
    empty.hidden = entries.length > 0;
    clear.hidden = entries.length === 0;
  }

  async function forget(entry) {
    await store.remove(entry.id);
    entries = entries.filter((other) => other.id !== entry.id);
    await show();
    (list.querySelector("button") ?? clear).focus();
  }

  clear.addEventListener("click", async () => {
    if (!window.confirm("Delete everything you made here? It cannot be brought back.")) return;
    await store.clear();
    entries = [];
    await show();
  });

  await show();
  return {
    /** The entry with an id, null where there is none. */
    async find(id) {
      const entry = entries.find((one) => one.id === id);
      return entry ? unpack(entry) : null;
    },

    /** Keeps an entry of a mode (see history/store.js), with a thumbnail of `face`, a picture or null. Gives it its id. */
    async keep(entry, face) {
      const whole = { ...pack(entry), when: new Date().toISOString(), thumbnail: face ? await thumbnail(face) : null };
      const id = await store.put(whole).catch(unkept);
      entries = [{ ...whole, id }, ...entries.filter((other) => other.id !== id)];
      await show();
      return id;
    },
  };
}

function unkept(error) {
  throw new Mistake(`The result is not kept: this browser's storage refuses it (${error.name}). Delete some of the history.`);
}

function textOf(entry) {
  return entry.turns?.at(-1)?.text || entry.results.find((result) => result.text)?.text || entry.prompt;
}

// What is written and chosen but not sent yet, and what is being made: kept for this tab, so that a reload of the page loses
// nothing.
//
// Words, numbers and choices go to sessionStorage, which is written at once, also while the page closes; pictures, and runs
// with theirs, to an IndexedDB of their own. A browser that forbids storage keeps nothing.

import { pack, unpack } from "./entries.js";
import { settled } from "./store.js";

const NAME = "llada-studio-drafts";
const ROWS = "rows";
const MOST = 40; // rows; a tab has up to two for each mode, and closed tabs leave theirs behind

/** The drafts of this tab, by mode. */
export async function openDrafts() {
  const tab = tabName();
  const rows = await openRows().catch(() => null);

  async function put(key, entry) {
    if (!rows) return;
    if (entry) await rows.put({ ...pack(entry), key: `${tab} ${key}`, when: Date.now() });
    else await rows.remove(`${tab} ${key}`);
  }

  async function get(key) {
    const row = await rows?.get(`${tab} ${key}`);
    return row ? unpack(row) : null;
  }

  return {
    /** {words, pictures, run}: what the three below were given last, or null. */
    async read(mode) {
      return { words: readWords(mode), pictures: await get(mode), run: await get(`${mode} run`) };
    },

    /** words: what JSON can say of a form. At once. */
    keepWords(mode, words) {
      try {
        sessionStorage.setItem(`llada draft ${mode}`, JSON.stringify(words));
      } catch {
        // storage is forbidden, or full: the words are only on the page
      }
    },

    /** pictures: {inputs, mask} of a form. */
    keepPictures: (mode, { inputs, mask }) => put(mode, inputs.length ? { inputs, mask, results: [] } : null),

    /** run: {name, began, about}, or null when it is over. about: an entry of the history without its results. */
    keepRun: (mode, run) => put(`${mode} run`, run && { results: [], ...run.about, run: { name: run.name, began: run.began } }),
  };
}

function readWords(mode) {
  try {
    return JSON.parse(sessionStorage.getItem(`llada draft ${mode}`));
  } catch {
    return null;
  }
}

function tabName() {
  try {
    const name = sessionStorage.getItem("llada tab") ?? randomName();
    sessionStorage.setItem("llada tab", name);
    return name;
  } catch {
    return randomName();
  }
}

/** A name nobody else has, nor guesses. (crypto.randomUUID is not there on pages without TLS.) */
export function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function openRows() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(ROWS, { keyPath: "key" }).createIndex("when", "when");
  const database = await settled(request);
  const rows = (mode) => database.transaction(ROWS, mode).objectStore(ROWS);

  return {
    get: (key) => settled(rows("readonly").get(key)),
    remove: (key) => settled(rows("readwrite").delete(key)),
    async put(row) {
      await settled(rows("readwrite").put(row));
      const keys = await settled(rows("readonly").index("when").getAllKeys()); // the oldest first
      for (const old of keys.slice(0, Math.max(0, keys.length - MOST))) await settled(rows("readwrite").delete(old));
    },
  };
}

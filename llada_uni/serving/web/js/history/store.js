// What was made, in this browser's IndexedDB: entries with their pictures as Blobs. Nothing is sent anywhere.
//
// entry: {id, mode, when, prompt, seed, settings, fields, inputs: [Blob], mask: Blob | null, thumbnail: Blob | null,
//         seconds, results: [{picture: Blob, seed, thinking, notices} | {text}]}; a chat also has turns: [{role, text, thinking,
//         pictures: [Blob]}]. history/entries.js makes them of what the modes hold.

const NAME = "llada-studio";
const ENTRIES = "entries";
const MOST = 300; // older ones make room

/** The store; where a browser forbids storage (some private windows), one that lasts as long as the page. */
export function openStore() {
  return openDatabase().catch(createPassingStore);
}

async function openDatabase() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(ENTRIES, { keyPath: "id", autoIncrement: true });
  const database = await settled(request);
  const entries = (mode) => database.transaction(ENTRIES, mode).objectStore(ENTRIES);

  return {
    /** All entries, the newest first. */
    all: async () => (await settled(entries("readonly").getAll())).reverse(),

    /** Writes an entry, in the place of the one with its id if it has one; returns its id. */
    async put(entry) {
      const id = await settled(entries("readwrite").put(entry));
      const ids = await settled(entries("readonly").getAllKeys());
      for (const old of ids.slice(0, Math.max(0, ids.length - MOST))) await settled(entries("readwrite").delete(old));
      return id;
    },

    remove: (id) => settled(entries("readwrite").delete(id)),
    clear: () => settled(entries("readwrite").clear()),
  };
}

function createPassingStore() {
  const entries = new Map();
  return {
    all: async () => [...entries.values()].reverse(),
    async put(entry) {
      const id = entry.id ?? entries.size + 1;
      entries.set(id, { ...entry, id });
      return id;
    },
    remove: async (id) => entries.delete(id),
    clear: async () => entries.clear(),
  };
}

/** What an IndexedDB request comes to. */
export function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

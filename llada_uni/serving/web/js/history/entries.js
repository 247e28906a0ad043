// Entries as the modes hold them (with pictures) and as the store keeps them (with Blobs), one into the other.

import { fromFile } from "../pictures/files.js";

/** For the store. */
export function pack(entry) {
  return mapped(entry, (picture) => picture.blob);
}

/** For the modes. */
export async function unpack(entry) {
  const pictures = new Map();
  mapped(entry, (blob) => pictures.set(blob, null));
  for (const blob of pictures.keys()) pictures.set(blob, await fromFile(blob));
  return mapped(entry, (blob) => pictures.get(blob));
}

/** The entry with every picture in it changed. */
function mapped(entry, change) {
  const one = (value) => (value ? change(value) : null);
  const result = (piece) => ("picture" in piece ? { ...piece, picture: one(piece.picture) } : piece);
  const turn = (said) => ({ ...said, pictures: said.pictures.map(one) });
  return {
    ...entry,
    inputs: entry.inputs.map(one),
    mask: one(entry.mask),
    results: entry.results.map(result),
    turns: entry.turns?.map(turn),
  };
}

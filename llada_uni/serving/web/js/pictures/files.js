// Pictures as the studio holds them: a Blob (to keep and to save) beside its data address (to show and to send).
// Files, answers of the server and entries of the history -> {blob, url, width, height}.

import { Mistake } from "../failures.js";

const LARGEST = 2048; // longer sides are made smaller before they are sent: the model sees fewer pixels than that anyway
const THUMBNAIL = 112;
const READABLE = ["image/png", "image/jpeg", "image/webp", "image/gif"];

/** A picture from a file or Blob. Throws a Mistake for what is no picture. */
export async function fromFile(file) {
  if (!READABLE.includes(file.type)) {
    throw new Mistake(`${file.name || "This"} is not a picture the server reads: PNG, JPEG, WebP and GIF are.`);
  }
  const picture = await measured(file, await dataUrl(file));
  const longest = Math.max(picture.width, picture.height);
  return longest <= LARGEST ? picture : fromFile(await redrawn(picture, LARGEST / longest));
}

/** A picture from a data address, as the server sends them. */
export async function fromUrl(url) {
  return measured(blobOf(url), url);
}

/** The Blob of a data address. */
export function blobOf(url) {
  const [head, data] = url.split(",", 2);
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5).split(";")[0] });
}

/** A small Blob of a picture, for the history. */
export function thumbnail(picture) {
  return redrawn(picture, Math.min(1, THUMBNAIL / Math.max(picture.width, picture.height)));
}

/** The pictures in what was dropped or pasted. */
export function filesIn(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

/** An image element of a picture. */
export function image(picture, alt) {
  const node = new Image();
  node.src = picture.url;
  node.alt = alt;
  return node;
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Mistake("The picture could not be read."));
    reader.readAsDataURL(blob);
  });
}

async function measured(blob, url) {
  const node = new Image();
  node.src = url;
  try {
    await node.decode();
  } catch {
    throw new Mistake(`${blob.name || "This"} could not be read as a picture.`);
  }
  return { blob, url, width: node.naturalWidth, height: node.naturalHeight };
}

async function redrawn(picture, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const node = image(picture, "");
  await node.decode();
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(node, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// The studio's three kinds of request as {path, body}, and what comes back: the server's events -> a few kinds of our own.
//
//   {kind: "progress", index, stage, done, total, codes, settled, confidences, grid}   after a step
//   {kind: "partial", index, url}                                                      a picture of drafts
//   {kind: "picture", index, picture, seed, thinking, notices}                         a finished picture
//   {kind: "text" | "thinking", index, text}                                           words that are settled
//
// index: which of the n pictures of the request.

import { Failure } from "../failures.js";
import { fromUrl } from "../pictures/files.js";

const SHOWN = { stream: true, partial_images: 3, progress: true };

/** fields: prompt, n, seed, size, thinking, and settings. */
export function toDraw(fields) {
  return { path: "v1/images/generations", body: { ...fields, ...SHOWN } };
}

/** fields: prompt, images (data addresses), mask (likewise; white is drawn again) or none, seed, settings. */
export function toEdit({ mask, ...fields }) {
  const masked = mask ? { mask, mask_mode: "white" } : {};
  return { path: "v1/images/edits", body: { ...fields, ...masked, ...SHOWN } };
}

/** For an answer in words, or words and pictures. fields: messages, modalities, seed, settings. */
export function toAnswer(fields) {
  return { path: "v1/chat/completions", body: { ...fields, stream: true, progress: true } };
}

/** What the events of an answer say. */
export async function* answered(events) {
  let ended = false;
  for await (const event of events) {
    if (event.type === "llada.progress") yield { kind: "progress", ...event };
    if (event.type === "llada.partial_image") yield { kind: "partial", index: 0, url: urlOf(event) };
    const choice = event.choices[0];
    if (!choice) continue;
    const { content, reasoning_content: thought } = choice.delta;
    if (thought) yield { kind: "thinking", index: 0, text: thought };
    if (typeof content === "string" && content) yield { kind: "text", index: 0, text: content };
    for (const piece of Array.isArray(content) ? content : []) {
      yield { kind: "picture", index: 0, picture: await fromUrl(piece.image_url.url), seed: event.seed };
    }
    ended ||= Boolean(choice.finish_reason);
  }
  if (!ended) throw brokenOff();
}

/** What the events of a drawing or an edit of `missing` pictures say. */
export async function* drawn(events, missing) {
  for await (const event of events) {
    const { index } = event;
    if (event.type === "llada.progress") yield { kind: "progress", ...event };
    else if (event.type === "llada.thinking") yield { kind: "thinking", index, text: event.delta };
    else if (event.type.endsWith(".partial_image")) yield { kind: "partial", index, url: urlOf(event) };
    else if (event.type.endsWith(".completed")) {
      missing -= 1;
      const { seed, thinking = null, notices = null } = event;
      yield { kind: "picture", index, picture: await fromUrl(urlOf(event)), seed, thinking, notices };
    }
  }
  if (missing) throw brokenOff();
}

function brokenOff() {
  return new Failure("The answer broke off before its end. Try again; if it happens again, the server's log says why.");
}

function urlOf(event) {
  return `data:image/${event.output_format ?? "png"};base64,${event.b64_json}`;
}

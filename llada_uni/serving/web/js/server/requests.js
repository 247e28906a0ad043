// The studio's three kinds of request, and what comes back: the server's events -> a few kinds of our own.
//
//   {kind: "progress", index, stage, done, total, codes, settled, confidences, grid}   after a step
//   {kind: "partial", index, url}                                                      a picture of drafts
//   {kind: "picture", index, picture, seed, thinking}                                  a finished picture
//   {kind: "text" | "thinking", index, text}                                           words that are settled
//
// index: which of the n pictures of the request.

import { Failure } from "../failures.js";
import { fromUrl } from "../pictures/files.js";

const PARTIALS = 3;

/** Events of a drawing. fields: prompt, n, seed, size, thinking, and settings. */
export function draw(client, fields, signal) {
  return paint(client, "v1/images/generations", fields, signal);
}

/** Events of an edit. fields: prompt, images (data addresses), mask (likewise; white is drawn again) or none, seed, settings. */
export function edit(client, { mask, ...fields }, signal) {
  const masked = mask ? { mask, mask_mode: "white" } : {};
  return paint(client, "v1/images/edits", { ...fields, ...masked }, signal);
}

/** Events of an answer in words, or words and pictures. fields: messages, modalities, seed, settings. */
export async function* answer(client, fields, signal) {
  const body = { ...fields, stream: true, progress: true };
  let ended = false;
  for await (const event of client.stream("v1/chat/completions", body, signal)) {
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

async function* paint(client, path, fields, signal) {
  const body = { ...fields, stream: true, partial_images: PARTIALS, progress: true };
  let missing = fields.n ?? 1;
  for await (const event of client.stream(path, body, signal)) {
    const { index } = event;
    if (event.type === "llada.progress") yield { kind: "progress", ...event };
    else if (event.type === "llada.thinking") yield { kind: "thinking", index, text: event.delta };
    else if (event.type.endsWith(".partial_image")) yield { kind: "partial", index, url: urlOf(event) };
    else if (event.type.endsWith(".completed")) {
      missing -= 1;
      const picture = await fromUrl(urlOf(event));
      yield { kind: "picture", index, picture, seed: event.seed, thinking: event.thinking ?? null };
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

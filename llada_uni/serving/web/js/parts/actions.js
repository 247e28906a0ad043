// What one can do with a finished picture: keep it, make it again, take it to another mode.

import { button, el } from "../dom.js";
import { readableName, saveJson, savePicture } from "../pictures/download.js";

const GOALS = [["edit", "Edit", "Edit this picture"], ["ask", "Ask", "Ask about this picture"], ["chat", "Chat", "Chat about this picture"]];

/**
 * Buttons. about: what the picture was made of ({prompt, seed, ...}, saved as JSON); again: runs the same once more, or
 * none where that makes no sense.
 */
export function createActions(studio, picture, about, again) {
  const name = readableName(about.prompt, about.seed);
  const goals = GOALS.map(([mode, words, label]) =>
    button(words, { class: "small", label, onclick: () => studio.take(mode, picture) }));
  const record = { ...about, width: picture.width, height: picture.height, model: studio.model };
  return el("div", { class: "actions" },
    button(null, { glyph: "down", class: "small", label: "Download the picture", onclick: () => savePicture(picture, name) }),
    button(null, { glyph: "sheet", class: "small", label: "Download how it was made (JSON)", onclick: () => saveJson(record, name) }),
    button(null, { glyph: "copy", class: "small", label: "Copy the seed",
      onclick: () => navigator.clipboard.writeText(String(about.seed)) }),
    again ? button(null, { glyph: "again", class: "small", label: "Same again", onclick: again }) : null,
    ...goals);
}

/** The line under a picture. */
export function factsOf(picture, seed, seconds) {
  const time = seconds === undefined ? [] : [`${seconds.toFixed(1)} s`];
  return el("figcaption", { class: "facts" }, [`seed ${seed}`, `${picture.width} × ${picture.height}`, ...time].join(" · "));
}

/** What the server says of a picture that is not quite what was asked for. */
export function noticesOf(notices) {
  return (notices ?? []).map((words) => el("p", { class: "hint" }, `${words.charAt(0).toUpperCase()}${words.slice(1)}.`));
}

/** Thoughts apart from the result, folded. */
export function thinkingFold(text, open = false) {
  return el("details", { class: "thinking", open }, el("summary", {}, "Thinking"), el("p", {}, text));
}

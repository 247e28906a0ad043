// The help: the shortcuts, and what the model can be asked for.

import { el } from "../dom.js";
import { SHORTCUTS } from "./keys.js";

const SMALL_WORLD = "It is a small model of a small world: 100 things (cat, rocket, donut …) and the ten digits as cartoon, flat or 3d emoji, "
  + "on eight plain backgrounds, at nine places of a picture of 192 × 192. Outside of that world it knows nothing.";
const SMALL_WORLD_MODEL = "world"; // the directory of the shipped model

/** open() shows it; about(defaults) says which model is served. */
export function createHelp() {
  const dialog = document.getElementById("help");
  const rows = SHORTCUTS.map(([keys, words]) => el("tr", {}, el("th", { scope: "row" }, el("kbd", {}, keys)), el("td", {}, words)));
  document.getElementById("help-keys").replaceChildren(...rows);
  const open = () => dialog.showModal();
  document.getElementById("help-open").addEventListener("click", open);

  return {
    open,
    about({ model, version }) {
      const small = model === SMALL_WORLD_MODEL;
      document.getElementById("help-model").textContent = `The model is ${model} (server ${version}). ${small ? SMALL_WORLD : ""}`;
    },
  };
}

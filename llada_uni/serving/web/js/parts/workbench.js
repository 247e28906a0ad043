// What all modes share: a form with words, seed and settings; a run that can be cancelled; a stage that shows the result.

import { button, el, part } from "../dom.js";
import { Mistake } from "../failures.js";
import { createExamples } from "./examples.js";
import { createNotice } from "./notice.js";
import { createProgress } from "./progress.js";
import { createSeed } from "./seed.js";
import { createSettings } from "./settings.js";

/**
 * Brings the panel of a mode to life. settings: the tasks whose settings it may show; empty: what the stage says before the
 * first result; work(run): does the work, run = {prompt, seed, settings, signal, progress}; anything it throws is shown.
 */
export function createWorkbench(studio, mode, { settings: tasks, empty, work }) {
  const panel = document.getElementById(`panel-${mode}`);
  const form = panel.querySelector("form");
  const prompt = form.elements.prompt;
  keepDraft(prompt, mode);
  const stage = part(panel, "stage");
  const notice = createNotice();
  const result = el("div", { class: "result" }, el("div", { class: "empty" }, el("p", {}, empty)));
  const live = el("div", { class: "live" });
  stage.append(notice.root, live, result);

  const seed = createSeed(part(form, "seed"));
  const settings = createSettings(part(form, "settings"), tasks, studio.defaults.settings);
  const showExamples = createExamples(part(form, "examples"), mode, (words) => {
    prompt.value = words;
    prompt.focus();
  });
  const runRow = part(form, "run");
  const { start, stop } = createRunRow(runRow, () => running?.abort());
  let running = null;

  async function run() {
    if (running) return;
    notice.clear();
    const progress = createProgress();
    try {
      const words = prompt.value.trim();
      if (!words) {
        prompt.focus();
        throw new Mistake("There are no words yet: write some, or take an example.");
      }
      const chosen = { prompt: words, settings: settings.values(), seed: seed.next() };
      running = new AbortController();
      setBusy(true);
      live.replaceChildren(progress.root);
      progress.start();
      bringIntoView(stage);
      await work({ ...chosen, signal: running.signal, progress });
      studio.announce(`${runRow.dataset.label}: finished`);
    } catch (error) {
      if (running?.signal.aborted) studio.announce("Cancelled");
      else notice.show(error, error instanceof Mistake ? null : run);
      bringIntoView(stage);
    } finally {
      progress.stop();
      live.replaceChildren();
      running = null;
      setBusy(false);
    }
  }

  function setBusy(busy) {
    start.hidden = busy;
    stop.hidden = !busy;
    stage.setAttribute("aria-busy", String(busy));
    document.getElementById(`tab-${mode}`).toggleAttribute("data-busy", busy);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });

  return {
    panel, form, prompt, result, seed, settings, showExamples, run,
    complain: (error) => notice.show(error),
    cancel: () => running?.abort(),
    isRunning: () => running !== null,
    /** Puts the words, the seed and the settings of an entry of the history back. */
    restore(entry) {
      notice.clear();
      prompt.value = entry.prompt;
      seed.hold(entry.seed);
      settings.set(entry.settings);
    },
  };
}

/** Words that were not sent yet survive a reload of the page, in this tab. */
function keepDraft(prompt, mode) {
  const key = `llada draft ${mode}`;
  try {
    prompt.value ||= sessionStorage.getItem(key) ?? "";
    const keep = () => sessionStorage.setItem(key, prompt.value);
    prompt.addEventListener("input", keep);
    window.addEventListener("pagehide", keep); // also what an example or the history put there
  } catch {
    // storage is forbidden here: the words are only on the page
  }
}

/** Scrolls to a stage whose beginning is out of sight, as on a phone. */
function bringIntoView(stage) {
  const { top } = stage.getBoundingClientRect();
  if (top < 0 || top > window.innerHeight - 160) stage.scrollIntoView();
}

function createRunRow(root, cancel) {
  const start = button(root.dataset.label, { class: "primary", type: "submit" });
  start.append(el("kbd", { "aria-hidden": "true" }, "Ctrl ↵"));
  const stop = button("Cancel", { glyph: "close", hidden: true, onclick: cancel });
  stop.append(el("kbd", { "aria-hidden": "true" }, "Esc"));
  root.classList.add("run");
  root.append(start, stop);
  return { start, stop };
}

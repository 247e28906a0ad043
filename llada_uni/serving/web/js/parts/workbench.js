// What all modes share: a form with words, seed and settings; a run that can be cancelled, and that a reload of the page
// finds again; a stage that shows the result.

import { button, el, part } from "../dom.js";
import { Failure, Mistake } from "../failures.js";
import { randomName } from "../history/drafts.js";
import { createExamples } from "./examples.js";
import { createNotice } from "./notice.js";
import { createProgress } from "./progress.js";
import { createSeed } from "./seed.js";
import { createSettings } from "./settings.js";

const LOST = "The server no longer has what was being made here.";

/**
 * Brings the panel of a mode to life. settings: the tasks whose settings it may show; empty: what the stage says before the
 * first result. What a mode does:
 *
 *   state()                           what its form holds beside words, seed and settings: {fields, inputs, mask}
 *   fill(entry)                       puts fields, inputs and mask of an entry (history/store.js) into the form
 *   prepare({prompt, seed, settings}) the form as a request: {about, path, body}; about: the entry without its results
 *   follow(about, events, progress)   shows what is being made; resolves to {entry, face}, face: its picture for the history
 *   show(entry)                       shows what was made
 *   kept(id, entry)                   hears under which id the history keeps it
 */
export function createWorkbench(studio, mode, { settings: tasks, empty, state, fill, prepare, follow, show, kept = () => {} }) {
  const panel = document.getElementById(`panel-${mode}`);
  const form = panel.querySelector("form");
  const prompt = form.elements.prompt;
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
  const { start, stop } = createRunRow(runRow, cancel);
  let running = null; // an AbortController
  let shown = null; // the id in the history of what the stage shows
  let left = null; // a run whose connection was lost: the server may still be at it
  let recalled = false; // nothing is kept before what was kept is back
  let leaving = false;

  // --- runs ---

  /** Runs what the form says. */
  async function run() {
    await attend(async () => {
      const words = prompt.value.trim();
      if (!words) {
        prompt.focus();
        throw new Mistake("There are no words yet: write some, or take an example.");
      }
      const { about, path, body } = await prepare({ prompt: words, settings: settings.values(), seed: seed.next() });
      if (left) studio.client.drop(left.name);
      const task = { name: randomName(), began: Date.now(), about: { ...about, mode, prompt: words, seed: body.seed } };
      await studio.drafts.keepRun(mode, task).catch(() => {}); // without storage a reload loses it, and that is all
      return { task, events: (signal) => studio.client.stream(path, body, { signal, name: task.name }) };
    });
  }

  /** Takes up a run that the server is at, or has finished. */
  async function resume(task) {
    await attend(async () => ({ task, events: (signal) => studio.client.resume(task.name, signal) }));
  }

  async function attend(begin) {
    if (running) return;
    const { signal } = running = new AbortController();
    const progress = createProgress();
    let task = null;
    let heard = false; // of the server, in this run

    async function* listening(events) {
      for await (const event of events) {
        heard = true;
        yield event;
      }
    }

    notice.clear();
    setBusy(true);
    try {
      const begun = await begin();
      task = begun.task;
      live.replaceChildren(progress.root);
      progress.start(task.began);
      bringIntoView(stage);
      const { entry, face } = await follow(task.about, listening(begun.events(signal)), progress);
      const whole = { ...entry, seconds: progress.seconds };
      shown = await studio.history.keep(whole, face);
      kept(shown, whole);
      await over(task);
      studio.announce(`${runRow.dataset.label}: finished`);
    } catch (error) {
      await complain(error, task, signal.aborted, heard);
    } finally {
      progress.stop();
      live.replaceChildren();
      running = null;
      setBusy(false);
      keepWords();
    }
  }

  async function complain(error, task, cancelled, heard) {
    if (leaving) return; // the page closes, which ends its connections; the run stays
    const lost = error instanceof Failure && error.status === 0 && !cancelled && task;
    left = lost ? task : null;
    if (cancelled) studio.announce("Cancelled");
    else if (lost) notice.show(error, heard ? () => resume(task) : run);
    else if (error instanceof Failure && error.code === "stream_not_found") notice.show(new Mistake(LOST), run);
    else notice.show(error, error instanceof Mistake ? null : run);
    bringIntoView(stage);
    if (task && !lost) await over(task);
  }

  /** The server need not keep it any longer, nor this tab. */
  async function over(task) {
    studio.client.drop(task.name);
    await studio.drafts.keepRun(mode, null).catch(() => {});
  }

  function cancel() {
    running?.abort();
  }

  function setBusy(busy) {
    start.hidden = busy;
    stop.hidden = !busy;
    stage.setAttribute("aria-busy", String(busy));
    document.getElementById(`tab-${mode}`).toggleAttribute("data-busy", busy);
  }

  setBusy(false);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });

  // --- what survives a reload ---

  function keepWords() {
    if (!recalled) return;
    const { fields } = state();
    const words = { prompt: prompt.value, seed: seed.draft(), settings: settings.draft(), fields, shown };
    studio.drafts.keepWords(mode, words);
  }

  function keepPictures() {
    if (!recalled) return;
    studio.drafts.keepPictures(mode, state()).catch(() => {});
  }

  form.addEventListener("input", keepWords);
  form.addEventListener("change", keepWords);
  window.addEventListener("pagehide", () => {
    leaving = true;
    keepWords(); // also what an example, the dice or the history put there
  });
  window.addEventListener("pageshow", () => { leaving = false; });

  /** Brings back what the tab held before it was loaded anew: the form, the result, and a run that goes on. */
  async function recall() {
    const { words, pictures, run: going } = await studio.drafts.read(mode);
    const past = await studio.history.find(words?.shown);
    if (past) await show(past);
    shown = past?.id ?? null;
    if (words) {
      prompt.value = words.prompt;
      seed.recall(words.seed);
      settings.set(words.settings);
      await fill({ fields: words.fields, inputs: pictures?.inputs ?? [], mask: pictures?.mask ?? null });
    }
    recalled = true;
    if (!going) return;
    const { run: task, key, when, ...about } = going;
    resume({ ...task, about });
  }

  /** Puts the words, the seed, the settings and all else of an entry back into the form. */
  async function putBack(entry) {
    notice.clear();
    prompt.value = entry.prompt;
    seed.hold(entry.seed);
    settings.set(entry.settings);
    await fill(entry);
    keepWords();
    keepPictures();
  }

  return {
    panel, form, prompt, result, seed, settings, showExamples, run, cancel, keepPictures,
    complain: (error) => notice.show(error),
    isRunning: () => running !== null,
    recall: () => recall().catch((error) => {
      recalled = true;
      notice.show(error);
    }),

    /** Runs once more what an entry was made of. */
    async again(entry) {
      await putBack(entry);
      await run();
    },

    /** Brings an entry of the history back. */
    async restore(entry) {
      await putBack(entry);
      await show(entry);
      shown = entry.id;
      keepWords();
    },

    /** The stage shows nothing of the history. */
    forget() {
      shown = null;
      keepWords();
    },
  };
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

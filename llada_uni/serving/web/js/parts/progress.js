// How far a run is: a bar, the stage in words, steps and seconds.

import { el } from "../dom.js";

const STAGES = {
  text: { words: (done) => `Writing: ${done} tokens`, share: (part) => 0.2 * part },
  codes: { words: (done, total) => `Filling in codes: ${done} of ${total}`, share: (part) => 0.2 + 0.5 * part },
  decode: { words: (done, total) => `Codes become pixels: ${done} of ${total}`, share: (part) => 0.7 + 0.3 * part },
};

/** A bar. start() sets the clock going, step(event, results) tells of `llada.progress`, stop() holds the clock. */
export function createProgress() {
  const bar = el("progress", { max: "1", "aria-label": "Progress" });
  const stage = el("span", {}, "Waiting for a place");
  const count = el("span");
  const root = el("div", { class: "progress" }, bar, el("p", {}, stage, count));
  const shares = new Map(); // how far each of the results is
  let steps = 0;
  let began = performance.now();
  let clock = 0;

  function seconds() {
    return (performance.now() - began) / 1000;
  }

  function tick() {
    const time = `${seconds().toFixed(1)} s`;
    count.textContent = steps ? `${steps} steps · ${time}` : time;
  }

  return {
    root,
    start() {
      began = performance.now();
      clock = setInterval(tick, 100);
      tick();
    },
    step({ index, stage: name, done, total }, results) {
      steps += 1;
      shares.set(index, STAGES[name].share(done / Math.max(1, total)));
      bar.value = [...shares.values()].reduce((sum, share) => sum + share, 0) / results;
      stage.textContent = STAGES[name].words(done, total);
    },
    stop() {
      clearInterval(clock);
      tick();
    },
    get seconds() {
      return seconds();
    },
  };
}

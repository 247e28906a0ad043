// How far a run is: a bar, the stage in words, and seconds.

import { el } from "../dom.js";

const STAGES = {
  text: { words: () => "Writing", share: (part) => 0.2 * part },
  codes: { words: (done, total) => `Composing: ${done} of ${total} places`, share: (part) => 0.2 + 0.5 * part },
  decode: { words: (done, total) => `Drawing the details: step ${done} of ${total}`, share: (part) => 0.7 + 0.3 * part },
};

/** A bar. start(since) sets the clock going, as if since then (Date.now()), step(event, results) tells of `llada.progress`, stop() holds the clock. */
export function createProgress() {
  const bar = el("progress", { max: "1", "aria-label": "Progress" });
  const stage = el("span", {}, "Waiting for its turn");
  const count = el("span");
  const root = el("div", { class: "progress" }, bar, el("p", {}, stage, count));
  const shares = new Map(); // how far each of the results is
  let began = Date.now();
  let clock = 0;

  function seconds() {
    return (Date.now() - began) / 1000;
  }

  function tick() {
    count.textContent = `${seconds().toFixed(1)} s`;
  }

  return {
    root,
    start(since) {
      began = since;
      clock = setInterval(tick, 100);
      tick();
    },
    step({ index, stage: name, done, total }, results) {
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

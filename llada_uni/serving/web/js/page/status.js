// Whether the server is there and its model loaded: a dot and a few words in the bar.

import { inWords } from "../failures.js";

const POLL = 1500; // milliseconds between two looks while the model loads
const status = document.getElementById("status");

/** Waits until the server is ready; resolves to its defaults (GET /v1/llada/defaults). Throws when it refuses to tell them. */
export async function untilReady(client) {
  for (;;) {
    try {
      const { ready, message } = await client.ready();
      if (ready) break;
      say("waiting", message);
    } catch (error) {
      say("away", inWords(error));
    }
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
  const defaults = await client.get("v1/llada/defaults");
  say("ready", `${defaults.model} is ready`);
  return defaults;
}

/** The studio could not be started. */
export function sayStopped(error) {
  say("away", `${inWords(error)} Reload the page to try again.`);
}

function say(state, words) {
  status.dataset.state = state;
  status.textContent = words;
  status.title = words;
}

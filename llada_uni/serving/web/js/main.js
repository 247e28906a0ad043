// The studio starts here: asks the server what it can do, brings the five modes to life, and ties them together.
//
// studio: what the modes are given: client (server/client.js), defaults (server/defaults.js), history (history/panel.js),
// drafts (history/drafts.js), request (fields of every request), model (its name), take(mode, picture) and announce(words).

import { openDrafts } from "./history/drafts.js";
import { createHistory } from "./history/panel.js";
import { openStore } from "./history/store.js";
import { createAsk } from "./modes/ask.js";
import { createChat } from "./modes/chat.js";
import { createDraw } from "./modes/draw.js";
import { createEdit } from "./modes/edit.js";
import { createStory } from "./modes/story.js";
import { createHelp } from "./page/help.js";
import { askForKey } from "./page/key_dialog.js";
import { listenToKeys } from "./page/keys.js";
import { sayStopped, untilReady } from "./page/status.js";
import { createTabs } from "./page/tabs.js";
import { createClient } from "./server/client.js";
import { readDefaults } from "./server/defaults.js";

async function start() {
  const tabs = createTabs();
  const help = createHelp();
  const client = createClient(askForKey);
  const defaults = readDefaults(await untilReady(client));
  help.about(defaults);

  const modes = {};
  const studio = {
    client,
    defaults,
    model: defaults.model,
    request: { model: defaults.model },
    history: await createHistory(await openStore(), open),
    drafts: await openDrafts(),
    announce(words) {
      document.getElementById("announcer").textContent = words;
    },
    take(mode, picture) {
      tabs.show(mode);
      modes[mode].take(picture);
      modes[mode].prompt.focus();
    },
  };

  function open(entry) {
    if (modes[entry.mode].isRunning()) return studio.announce("This mode is at work; cancel it first.");
    tabs.show(entry.mode);
    modes[entry.mode].restore(entry);
  }

  Object.assign(modes, { draw: createDraw(studio), ask: createAsk(studio), edit: createEdit(studio),
    chat: createChat(studio), story: createStory(studio) });
  await Promise.all(Object.values(modes).map((mode) => mode.recall()));
  listenToKeys(tabs, modes, help);
  document.getElementById("main").inert = false;
}

start().catch(sayStopped);

// Chat: turns of words and pictures -> the next answer. The whole conversation is one entry of the history.

import { el, part } from "../dom.js";
import { image } from "../pictures/files.js";
import { createSlots, takeDropsAndPastes } from "../pictures/slots.js";
import { createActions, factsOf } from "../parts/actions.js";
import { createInterleaved } from "../parts/interleaved.js";
import { createWorkbench } from "../parts/workbench.js";
import { messageOf } from "../server/messages.js";
import { answer } from "../server/requests.js";

export function createChat(studio) {
  const bench = createWorkbench(studio, "chat", {
    settings: ["understand", "story"],
    empty: "Give a picture with your first turn and talk about it. Every turn sees all turns before it.",
    work,
  });
  const { form, prompt } = bench;
  const slots = createSlots(part(form, "pictures"), { most: studio.defaults.mostPictures, complain: bench.complain });
  takeDropsAndPastes(bench.panel, slots);
  const mayDraw = form.elements["may-draw"];
  mayDraw.addEventListener("change", showWay);
  const talk = el("div", { class: "talk", role: "log", "aria-label": "Conversation" });
  const beginning = [...bench.result.childNodes];
  let turns = []; // {role, text, pictures}
  let id; // of the conversation in the history, once it is there
  part(form, "afresh").addEventListener("click", () => {
    bench.cancel();
    open([], undefined);
    slots.set([]);
    prompt.focus();
  });

  function showWay() {
    bench.showExamples(mayDraw.checked ? "chat with pictures" : "chat");
    bench.settings.use(mayDraw.checked ? "story" : "understand");
  }

  function open(said, entryId) {
    turns = said;
    id = entryId;
    talk.replaceChildren(...said.map((turn) => (turn.role === "user" ? userNode(turn) : assistantNode(turn))));
    bench.result.replaceChildren(...(said.length ? [talk] : beginning));
  }

  async function work({ prompt: text, seed, settings, signal, progress }) {
    const asked = { role: "user", text, pictures: slots.pictures };
    const messages = [...turns, asked].map(messageOf);
    const pictures = mayDraw.checked ? { modalities: ["text", "image"], partial_images: 3 } : {};
    const events = answer(studio.client, { ...studio.request, messages, seed, ...pictures, ...settings }, signal);
    const question = userNode(asked);
    const { root, answered } = answering(text, seed);
    bench.result.replaceChildren(talk);
    talk.append(question, root);
    root.scrollIntoView({ block: "nearest" });
    try {
      await answered.follow(events, progress);
    } catch (error) {
      question.remove();
      root.remove();
      if (!turns.length) open([], undefined);
      throw error;
    }
    turns = [...turns, asked, turnOf(answered.results)];
    prompt.value = "";
    slots.set([]);
    await keep(text, seed, settings, progress.seconds);
  }

  async function keep(text, seed, settings, seconds) {
    const face = turns.flatMap((turn) => turn.pictures)[0] ?? null;
    const fields = { mayDraw: mayDraw.checked };
    const entry = { mode: "chat", prompt: text, seed, settings, fields, inputs: [], mask: null, seconds, results: [], turns };
    id = await studio.history.keep(id === undefined ? entry : { ...entry, id }, face);
  }

  function assistantNode({ text, pictures, seed }) {
    const { root, answered } = answering(text, seed);
    answered.show([...(text ? [{ text }] : []), ...pictures.map((picture) => ({ picture, seed }))]);
    return root;
  }

  function answering(about, seed) {
    const root = el("article", { class: "turn assistant", "aria-label": "Answer" });
    const under = (picture) => [factsOf(picture, seed), createActions(studio, picture, { mode: "chat", prompt: about, seed })];
    return { root, answered: createInterleaved(root, about, under, "bubble") };
  }

  function turnOf(results) {
    const text = results.filter((piece) => piece.text).map((piece) => piece.text).join(" ");
    const pictures = results.filter((piece) => piece.picture);
    return { role: "assistant", text, pictures: pictures.map(({ picture }) => picture), seed: pictures[0]?.seed };
  }

  return {
    ...bench,
    take: slots.add,
    restore(entry) {
      bench.restore(entry);
      prompt.value = "";
      mayDraw.checked = entry.fields.mayDraw;
      showWay();
      slots.set([]);
      open(entry.turns, entry.id);
    },
  };
}

function userNode({ text, pictures }) {
  const attached = pictures.map((picture) => image(picture, "Picture of this turn"));
  return el("article", { class: "turn user", "aria-label": "Your turn" },
    attached.length ? el("div", { class: "attached" }, ...attached) : null, el("p", { class: "bubble" }, text));
}

// Chat: turns of words and pictures -> the next answer. The whole conversation is one entry of the history.

import { el, part } from "../dom.js";
import { image } from "../pictures/files.js";
import { createSlots, takeDropsAndPastes } from "../pictures/slots.js";
import { createActions, factsOf } from "../parts/actions.js";
import { createInterleaved } from "../parts/interleaved.js";
import { createWorkbench } from "../parts/workbench.js";
import { messageOf } from "../server/messages.js";
import { answered, toAnswer } from "../server/requests.js";

export function createChat(studio) {
  const bench = createWorkbench(studio, "chat", {
    settings: ["understand", "story"],
    empty: "Give a picture with your first turn and talk about it. Every turn sees all turns before it.",
    state: () => ({ fields: { mayDraw: mayDraw.checked }, inputs: slots.pictures, mask: null }),
    fill,
    prepare,
    follow,
    show(entry) {
      open(entry.turns, entry.id);
      if (prompt.value.trim() === entry.prompt) prompt.value = ""; // it is a turn already
    },
    kept(entryId) {
      id = entryId;
    },
  });
  const { form, prompt } = bench;
  const slots = createSlots(part(form, "pictures"),
    { most: studio.defaults.mostPictures, complain: bench.complain, onchange: bench.keepPictures });
  takeDropsAndPastes(bench.panel, slots);
  const mayDraw = form.elements["may-draw"];
  mayDraw.addEventListener("change", showWay);
  const talk = el("div", { class: "talk", role: "log", "aria-label": "Conversation" });
  const beginning = [...bench.result.childNodes];
  let turns = []; // {role, text, pictures}
  let id; // of the conversation in the history, once it is there
  part(form, "afresh").addEventListener("click", () => {
    bench.cancel();
    bench.forget();
    open([], undefined);
    slots.set([]);
    prompt.focus();
  });

  function showWay() {
    bench.showExamples(mayDraw.checked ? "chat with pictures" : "chat");
    bench.settings.use(mayDraw.checked ? "story" : "understand");
  }

  function fill({ fields, inputs }) {
    mayDraw.checked = fields.mayDraw;
    showWay();
    slots.set(inputs);
  }

  function open(said, entryId) {
    turns = said;
    id = entryId;
    talk.replaceChildren(...said.map((turn) => (turn.role === "user" ? userNode(turn) : assistantNode(turn))));
    bench.result.replaceChildren(...(said.length ? [talk] : beginning));
  }

  function prepare({ prompt: text, seed, settings }) {
    const asked = { role: "user", text, pictures: slots.pictures };
    const messages = [...turns, asked].map(messageOf);
    const pictures = mayDraw.checked ? { modalities: ["text", "image"], partial_images: 3 } : {};
    const past = id === undefined ? { turns } : { turns, id };
    const about = { settings, fields: { mayDraw: mayDraw.checked }, inputs: asked.pictures, mask: null, ...past };
    return { about, ...toAnswer({ ...studio.request, messages, seed, ...pictures, ...settings }) };
  }

  /** The next turn. about.turns: those before it; about.inputs: the pictures of this one. */
  async function follow(about, events, progress) {
    const { prompt: text, seed } = about;
    if (about.turns !== turns) open(about.turns, about.id); // after a reload
    const asked = { role: "user", text, pictures: about.inputs };
    const question = userNode(asked);
    const { root, answer } = answering(text, seed);
    bench.result.replaceChildren(talk);
    talk.append(question, root);
    root.scrollIntoView({ block: "nearest" });
    try {
      await answer.follow(answered(events), progress);
    } catch (error) {
      question.remove();
      root.remove();
      if (!turns.length) open([], undefined);
      throw error;
    }
    turns = [...turns, asked, turnOf(answer.results)];
    if (prompt.value.trim() === text) { // else the next turn is being written already
      prompt.value = "";
      slots.set([]);
    }
    const face = turns.flatMap((turn) => turn.pictures)[0] ?? null;
    return { entry: { ...about, inputs: [], results: [], turns }, face };
  }

  function assistantNode({ text, pictures, seed }) {
    const { root, answer } = answering(text, seed);
    answer.show([...(text ? [{ text }] : []), ...pictures.map((picture) => ({ picture, seed }))]);
    return root;
  }

  function answering(about, seed) {
    const root = el("article", { class: "turn assistant", "aria-label": "Answer" });
    const under = (picture) => [factsOf(picture, seed), createActions(studio, picture, { mode: "chat", prompt: about, seed })];
    return { root, answer: createInterleaved(root, about, under, "bubble") };
  }

  function turnOf(results) {
    const text = results.filter((piece) => piece.text).map((piece) => piece.text).join(" ");
    const pictures = results.filter((piece) => piece.picture);
    return { role: "assistant", text, pictures: pictures.map(({ picture }) => picture), seed: pictures[0]?.seed };
  }

  return { ...bench, take: slots.add };
}

function userNode({ text, pictures }) {
  const attached = pictures.map((picture) => image(picture, "Picture of this turn"));
  return el("article", { class: "turn user", "aria-label": "Your turn" },
    attached.length ? el("div", { class: "attached" }, ...attached) : null, el("p", { class: "bubble" }, text));
}

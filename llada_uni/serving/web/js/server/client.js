// Talking to the server that sent this page: JSON out; JSON or a stream of events back. Addresses are relative to the page.

import { Failure, failureOf } from "../failures.js";
import { readEvents } from "./sse.js";

const KEY = "llada-studio-key";
const NAME = "x-llada-stream"; // a stream with a name goes on without us, and can be read again

/** A client. askForKey(reason): resolves to a key, or to null when the person declines. */
export function createClient(askForKey) {
  async function send(path, { body, signal, headers = {}, method } = {}) {
    const key = sessionStorage.getItem(KEY);
    const all = { ...headers };
    if (key) all.Authorization = `Bearer ${key}`;
    if (body !== undefined) all["Content-Type"] = "application/json";
    const request = { method: method ?? (body === undefined ? "GET" : "POST"), headers: all, body: JSON.stringify(body), signal };
    try {
      return await fetch(path, request);
    } catch (error) {
      throw networkTrouble(error);
    }
  }

  async function request(path, options) {
    for (;;) {
      const response = await send(path, options);
      if (response.ok) return response;
      const failure = await failureOf(response);
      if (response.status !== 401) throw failure;
      const key = await askForKey(failure.message);
      if (key === null) throw failure;
      sessionStorage.setItem(KEY, key);
    }
  }

  /** The events of an answer as objects, until the stream ends. An error in mid-stream is thrown like any other. */
  async function* events(path, options) {
    const response = await request(path, options);
    try {
      for await (const data of readEvents(response.body)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Failure(event.error.message, response.status);
        yield event;
      }
    } catch (error) {
      throw networkTrouble(error);
    }
  }

  return {
    /** The JSON of a GET. */
    async get(path) {
      return (await request(path)).json();
    },

    /** Whether the model is loaded: {ready, message}. */
    async ready() {
      const response = await send("ready");
      if (response.ok) return { ready: true, message: "" };
      return { ready: false, message: (await failureOf(response)).message };
    },

    /** The events of a POST; the server keeps them under `name`. */
    stream: (path, body, { signal, name }) => events(path, { body, signal, headers: { [NAME]: name } }),

    /** The events of a stream by its name: what there was, and what comes. */
    resume: (name, signal) => events(`v1/llada/streams/${name}`, { signal }),

    /** Ends a stream, or forgets it when it has ended. Nobody waits for that: the server does it by itself in the end. */
    drop(name) {
      send(`v1/llada/streams/${name}`, { method: "DELETE" }).catch(() => {});
    },
  };
}

/** fetch says TypeError for everything between here and the server; other errors stay what they are. */
function networkTrouble(error) {
  if (!(error instanceof TypeError)) return error;
  return new Failure("The server cannot be reached. Is it still running, and is this computer online?");
}

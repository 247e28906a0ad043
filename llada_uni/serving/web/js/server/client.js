// Talking to the server that sent this page: JSON out; JSON or a stream of events back. Addresses are relative to the page.

import { Failure, failureOf } from "../failures.js";
import { readEvents } from "./sse.js";

const KEY = "llada-studio-key";

/** A client. askForKey(reason): resolves to a key, or to null when the person declines. */
export function createClient(askForKey) {
  async function send(path, body, signal) {
    const headers = {};
    const key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const request = { method: body === undefined ? "GET" : "POST", headers, body: JSON.stringify(body), signal };
    try {
      return await fetch(path, request);
    } catch (error) {
      throw networkTrouble(error);
    }
  }

  async function request(path, body, signal) {
    for (;;) {
      const response = await send(path, body, signal);
      if (response.ok) return response;
      const failure = await failureOf(response);
      if (response.status !== 401) throw failure;
      const key = await askForKey(failure.message);
      if (key === null) throw failure;
      sessionStorage.setItem(KEY, key);
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

    /** The events of a POST as objects, until the stream ends. An error in mid-stream is thrown like any other. */
    async *stream(path, body, signal) {
      const response = await request(path, body, signal);
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
    },
  };
}

/** fetch says TypeError for everything between here and the server; other errors stay what they are. */
function networkTrouble(error) {
  if (!(error instanceof TypeError)) return error;
  return new Failure("The server cannot be reached. Is it still running, and is this computer online?");
}

// What went wrong, in words a person can act on. An answer of the server or an exception -> Failure -> one or two sentences.

/** A request that got no result. status: of the HTTP answer, 0 where none came; retryAfter: seconds, or null; code: the
 *  server's own word for programs, or null. */
export class Failure extends Error {
  constructor(message, status = 0, retryAfter = null, code = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
    this.code = code;
  }
}

/** Something a person can put right here and now: an empty field, a file that is no picture. The message is a sentence. */
export class Mistake extends Error {}

/** The failure that an HTTP answer tells of: the server's own sentence, in OpenAI's form. */
export async function failureOf(response) {
  const text = await response.text();
  const told = errorIn(text);
  const message = told?.message ?? `The server answered ${response.status}.`;
  return new Failure(message, response.status, seconds(response), told?.code ?? null);
}

function errorIn(text) {
  try {
    return JSON.parse(text).error ?? null;
  } catch {
    return null; // a proxy's page, say: its status has to do
  }
}

function seconds(response) {
  const value = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return Number.isFinite(value) ? value : null;
}

/** Sentences for a person. now: a Date. */
export function inWords(error, now = new Date()) {
  if (error instanceof Mistake) return error.message;
  if (!(error instanceof Failure)) return `Something in this page went wrong: ${error.message}`;
  const said = sentence(error.message);
  if (error.status === 429 && error.retryAfter !== null) {
    const at = new Date(now.getTime() + error.retryAfter * 1000).toLocaleTimeString();
    return `${said} Try again in ${error.retryAfter} s (at ${at}).`;
  }
  if (error.status === 429) return `${said} Try again in a moment.`;
  if (error.status === 503) return `${said} The server takes nothing just now; try again when it is ready.`;
  if (error.status === 504) return `${said} Fewer steps or a smaller picture take less time.`;
  return said;
}

function sentence(text) {
  const trimmed = text.trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

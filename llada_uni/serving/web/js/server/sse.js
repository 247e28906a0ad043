// Server-sent events over fetch (EventSource cannot send a body). Bytes -> lines -> events, one by one.

/** The data of every event of a response body, as text. Comment lines (the server's pings) are passed over. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const pieces = (waiting + value).replaceAll("\r\n", "\n").split("\n\n");
      waiting = pieces.pop();
      for (const piece of pieces) {
        const data = dataOf(piece);
        if (data !== null) yield data;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream may have broken already, which its reader has been told
  }
}

function dataOf(piece) {
  const lines = piece.split("\n").filter((line) => line.startsWith("data:"));
  return lines.length ? lines.map((line) => line.slice(5).trimStart()).join("\n") : null;
}

// Turns of a conversation as the server reads them: pictures first, then the words.

/** turn: {role, text, pictures}. */
export function messageOf({ role, text, pictures }) {
  if (!pictures.length) return { role, content: text };
  const shown = pictures.map((picture) => ({ type: "image_url", image_url: { url: picture.url } }));
  return { role, content: text ? [...shown, { type: "text", text }] : shown };
}

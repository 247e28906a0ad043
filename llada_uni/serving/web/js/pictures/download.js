// Saving to the person's disk: a picture under a name that says what it is, and its settings as JSON.

/** "A cat & a dog!", 7 -> "a-cat-a-dog-seed7" */
export function readableName(prompt, seed) {
  const words = prompt.toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  return `${words.slice(0, 60).replace(/-+$/, "") || "picture"}-seed${seed}`;
}

export function savePicture(picture, name) {
  save(picture.blob, `${name}.${picture.blob.type.split("/")[1]}`);
}

export function saveJson(record, name) {
  save(new Blob([JSON.stringify(record, null, 2)], { type: "application/json" }), `${name}.json`);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // the browser has begun to read it by then
}

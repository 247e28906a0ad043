// What GET /v1/llada/defaults says, turned into what the studio's fields ask: sizes to choose from, limits, settings.

const ENLARGED = [2, 4]; // times the model's own size, where it was trained for that one alone
const SHAPES = [[1, 1], [1, 0.75], [0.75, 1], [0.5, 0.5], [2, 2]]; // width and height, of the model's own size

/** raw: the answer of the server (serving/http/protocol/models.py). */
export function readDefaults({ model, version, settings, size_step: step, limits, decoders, tasks }) {
  return {
    model,
    version,
    decoders,
    sizes: sizesOf(settings, step, limits.max_pixels),
    mostResults: Math.min(4, limits.max_n), // more do not fit on a screen
    mostPictures: limits.max_pictures,
    settings: tasks,
  };
}

/** {value, words}: the model's own size first; then those it was trained for, and what these can be enlarged to; or where it
 *  names none, other shapes and scales of its own. */
function sizesOf({ generate: { width, height }, sizes: trained = [], other_size: other = "scale" }, step, most) {
  const own = `${width}x${height}`;
  const plain = (size) => ({ value: size, words: size.replace("x", " × ") });
  if (trained.length) {
    const drawn = [...new Set([own, ...trained])].filter((size) => trained.includes(size)).map(plain);
    return other === "scale" ? [...drawn, ...enlarged(drawn[0], trained, most)] : drawn;
  }
  const fitted = (side, share) => Math.max(step, Math.round((side * share) / step) * step);
  const sizes = SHAPES.map(([across, down]) => [fitted(width, across), fitted(height, down)]);
  return [...new Set(sizes.filter(([w, h]) => w * h <= most).map(([w, h]) => `${w}x${h}`))].map(plain);
}

/** Sizes that the server scales the first one to. */
function enlarged(first, trained, most) {
  const [width, height] = first.value.split("x").map(Number);
  return ENLARGED.map((times) => [times * width, times * height])
    .filter(([w, h]) => w * h <= most && !trained.includes(`${w}x${h}`))
    .map(([w, h]) => ({ value: `${w}x${h}`, words: `${w} × ${h}, enlarged from ${first.words}` }));
}

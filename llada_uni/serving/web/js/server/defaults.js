// What GET /v1/llada/defaults says, turned into what the studio's fields ask: sizes to choose from, limits, settings.

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

/** The model's own size first; then those it was trained for, or where it names none, other shapes and scales of it. */
function sizesOf({ generate: { width, height }, sizes: trained = [] }, step, most) {
  if (trained.length) return [...new Set([`${width}x${height}`, ...trained])].filter((size) => trained.includes(size));
  const fitted = (side, share) => Math.max(step, Math.round((side * share) / step) * step);
  const sizes = SHAPES.map(([across, down]) => [fitted(width, across), fitted(height, down)]);
  return [...new Set(sizes.filter(([w, h]) => w * h <= most).map(([w, h]) => `${w}x${h}`))];
}

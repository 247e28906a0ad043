// What GET /v1/llada/defaults says, turned into what the studio's fields ask: sizes to choose from, limits, grey figures.

const SHAPES = [[1, 1], [1, 0.75], [0.75, 1], [0.5, 0.5], [2, 2]]; // width and height, of the model's own size

/** raw: the answer of the server (serving/http/protocol/models.py). */
export function readDefaults({ model, version, settings, size_step: step, limits, decoders }) {
  const { generate, edit, understand, interleave, decode } = settings;
  const ownDecoder = decoders.includes(decode.decoder) ? decode.decoder : decoders[0];
  const pixels = { decoder: ownDecoder, decoder_steps: decode[`${ownDecoder}_steps`] };
  return {
    model,
    version,
    decoders,
    sizes: sizesOf(generate, step, limits.max_pixels),
    mostResults: Math.min(4, limits.max_n), // more do not fit on a screen
    mostPictures: limits.max_pictures,
    settings: {
      draw: { ...generate.codes, cfg_scale: generate.cfg_scale, ...pixels },
      ask: understand.text,
      edit: { ...edit.codes, ...scalesOf(edit), ...pixels },
      brush: { ...generate.codes, cfg_scale: generate.cfg_scale, ...pixels },
      chat: understand.text,
      story: { ...interleave.codes, ...scalesOf(interleave), ...pixels, max_frames: interleave.max_frames,
        max_tokens: interleave.text.max_tokens },
    },
  };
}

function scalesOf({ text_scale, image_scale, rescale }) {
  return { text_scale, image_scale, rescale };
}

function sizesOf({ width, height }, step, most) {
  const fitted = (side, share) => Math.max(step, Math.round((side * share) / step) * step);
  const sizes = SHAPES.map(([across, down]) => [fitted(width, across), fitted(height, down)]);
  return [...new Set(sizes.filter(([w, h]) => w * h <= most).map(([w, h]) => `${w}x${h}`))];
}

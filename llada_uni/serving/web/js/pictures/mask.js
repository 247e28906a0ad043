// A mask as an undoable drawing: white is drawn again, the rest stays. Dabs and strokes -> a canvas -> a picture to send.

import { blobOf } from "./files.js";

const UNDO = 30; // steps kept

/** A mask of a picture's size on `canvas`, where painted places are opaque in `color` (the page's choice). */
export function createMask(canvas, width, height, color) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const past = [];

  function remember() {
    past.push(context.getImageData(0, 0, width, height));
    if (past.length > UNDO) past.shift();
  }

  return {
    remember,

    /** A round-ended line from one point to another ({x, y}, pixels of the picture); the same point twice is a dab. */
    stroke(from, to, diameter, erase) {
      context.globalCompositeOperation = erase ? "destination-out" : "source-over";
      context.strokeStyle = color;
      context.lineCap = "round";
      context.lineWidth = diameter;
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(to.x + 0.01, to.y); // a line of no length at all would not be drawn
      context.stroke();
    },

    undo() {
      const before = past.pop();
      if (before) context.putImageData(before, 0, 0);
    },

    invert() {
      remember();
      context.globalCompositeOperation = "xor";
      context.fillStyle = color;
      context.fillRect(0, 0, width, height);
    },

    clear() {
      remember();
      context.clearRect(0, 0, width, height);
    },

    get empty() {
      return !opaque(context, width, height).some(Boolean);
    },

    /** The mask as a black and white picture (pictures/files.js). */
    toPicture() {
      const out = document.createElement("canvas");
      out.width = width;
      out.height = height;
      const target = out.getContext("2d");
      const pixels = target.createImageData(width, height);
      opaque(context, width, height).forEach((painted, place) => {
        pixels.data.set([painted * 255, painted * 255, painted * 255, 255], place * 4);
      });
      target.putImageData(pixels, 0, 0);
      const url = out.toDataURL("image/png");
      return { blob: blobOf(url), url, width, height };
    },

    /** Paints the white part of an earlier mask. */
    async load(picture) {
      const node = new Image();
      node.src = picture.url;
      await node.decode();
      context.globalCompositeOperation = "source-over";
      context.clearRect(0, 0, width, height);
      context.drawImage(node, 0, 0, width, height);
      const pixels = context.getImageData(0, 0, width, height);
      for (let place = 0; place < pixels.data.length; place += 4) pixels.data[place + 3] = pixels.data[place];
      context.putImageData(pixels, 0, 0);
      context.globalCompositeOperation = "source-in"; // white becomes the page's color
      context.fillStyle = color;
      context.fillRect(0, 0, width, height);
    },
  };
}

/** For each pixel 1 where the brush has been (soft rims count from the half on), else 0. */
function opaque(context, width, height) {
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, place) => (data[place * 4 + 3] >= 128 ? 1 : 0));
}

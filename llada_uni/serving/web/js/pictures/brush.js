// The brush over a picture: mouse, pen, touch and keys paint the mask of pictures/mask.js.

import { button, el } from "../dom.js";
import { image } from "./files.js";
import { createMask } from "./mask.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Fills `root` with a brush; `open(picture)` starts on a picture; onchange() hears of what is painted. The mask is `mask`,
 *  null before that. */
export function createBrush(root, onchange) {
  let mask = null;
  let size = { width: 0, height: 0 };
  let at = { x: 0, y: 0 };
  let last = null; // the point a stroke has come to, null between strokes

  const canvas = el("canvas", { tabindex: "0", role: "application",
    "aria-label": "Mask. Arrow keys move the brush, Space paints, X erases, Z undoes, I inverts." });
  const board = el("div", { class: "canvas" });
  const width = el("input", { type: "range", min: "2", max: "60", value: "25", "aria-label": "Brush size, per cent of the picture" });
  const erase = button("Erase", { glyph: "erase", class: "small", "aria-pressed": "false", onclick: toggleErase });
  const tools = el("div", { class: "tools" },
    el("label", {}, "Brush", width), erase,
    button("Undo", { glyph: "undo", class: "small", onclick: () => change("undo") }),
    button("Invert", { glyph: "invert", class: "small", onclick: () => change("invert") }),
    button("Clear", { class: "small", onclick: () => change("clear") }));
  const where = el("p", { class: "unseen", "aria-live": "polite" });
  root.classList.add("brush");
  root.append(board, tools, el("p", { class: "hint" },
    "What you paint is drawn again, everything else is kept. The model draws in small squares: one that you touch changes as a whole."), where);

  /** undo, invert or clear. */
  function change(what) {
    mask?.[what]();
    onchange();
  }

  function toggleErase() {
    erase.setAttribute("aria-pressed", String(!erasing()));
  }

  function erasing() {
    return erase.getAttribute("aria-pressed") === "true";
  }

  function diameter() {
    return (Math.min(size.width, size.height) * Number(width.value)) / 100;
  }

  function pointOf(event) {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * size.width, y: ((event.clientY - box.top) / box.height) * size.height };
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    mask.remember();
    last = pointOf(event);
    mask.stroke(last, last, diameter(), erasing());
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last === null) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) {
      const next = pointOf(one);
      mask.stroke(last, next, diameter(), erasing());
      last = next;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => {
    last = null;
    onchange();
  });

  function move([right, down]) {
    const step = diameter() / 2;
    at = { x: clamp(at.x + right * step, size.width), y: clamp(at.y + down * step, size.height) };
    where.textContent = `Brush at ${percent(at.x, size.width)} from the left, ${percent(at.y, size.height)} from the top`;
    board.querySelector(".aim").setAttribute("transform", `translate(${at.x} ${at.y})`);
  }

  const keys = {
    " ": () => { mask.remember(); mask.stroke(at, at, diameter(), erasing()); onchange(); },
    x: toggleErase,
    z: () => change("undo"),
    i: () => change("invert"),
    "[": () => { width.stepDown(4); },
    "]": () => { width.stepUp(4); },
  };
  canvas.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    const action = arrow ? () => move(arrow) : keys[event.key.toLowerCase()];
    if (!action || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  });

  return {
    open(picture) {
      size = picture;
      at = { x: picture.width / 2, y: picture.height / 2 };
      const color = getComputedStyle(document.documentElement).getPropertyValue("--mask").trim();
      mask = createMask(canvas, picture.width, picture.height, color);
      board.replaceChildren(image(picture, "The picture under the brush"), canvas, aim(picture));
    },
    get mask() {
      return mask;
    },
  };
}

/** A cross that shows where the keys have led the brush; only seen while the canvas has the focus. */
function aim({ width, height }) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "aims");
  svg.setAttribute("aria-hidden", "true");
  const cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const arm = Math.max(3, Math.min(width, height) / 24);
  cross.setAttribute("d", `M${-arm} 0H${arm}M0 ${-arm}V${arm}`);
  cross.setAttribute("class", "aim");
  cross.setAttribute("transform", `translate(${width / 2} ${height / 2})`);
  svg.append(cross);
  return svg;
}

function clamp(value, most) {
  return Math.min(most, Math.max(0, value));
}

function percent(value, whole) {
  return `${Math.round((100 * value) / whole)} %`;
}

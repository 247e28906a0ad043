"""Draw an image with exported graphs: onnxruntime, numpy and Pillow, without torch and without this package.

llada-uni export-graph out/graphs --capacity 256 --prompt "a cat at the top left and a dog at the bottom right on green"
python examples/onnx_only.py out/graphs --out cat.png

Block diffusion with a memory of keys and values and guidance, then the turbo decoder's sampler: what a small device has to do
by itself around the graphs. It is greedy, so that only the decoder's noise depends on the seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


class Graphs:
    """The files of a directory, and `graphs.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, json.loads((folder / "graphs.json").read_text())
        self.sessions: dict[str, Any] = {}

    def run(self, name: str, **inputs: np.ndarray) -> list[np.ndarray]:
        if name not in self.sessions:
            path = self.folder / f"{name}.onnx"
            self.sessions[name] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return self.sessions[name].run(None, inputs)


class Branch:
    """One prompt with its memory. An answer begins at column `start`; blocks end at multiples of the block's length."""

    def __init__(self, graphs: Graphs, prompt: list[int], start: int) -> None:
        self.graphs, self.block = graphs, graphs.notes["block"]
        shape = (self.block["layers"], 1, self.block["key_heads"], self.block["capacity"], self.block["head_dim"])
        self.keys, self.values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.shift, self.length = start - len(prompt), 0  # a shorter prompt begins at a later column
        size = self.block["block_length"]
        open_block = start // size * size
        while self.shift + self.length < open_block:
            stop = ((self.shift + self.length) // size + 1) * size
            self.finish(prompt[self.length : stop - self.shift])
        self.rest = prompt[self.length :]  # what of the prompt stands in the first open block

    def step(self, ids: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits [N, V] of the next N tokens, and their keys and values."""
        size, capacity, number = self.block["block_length"], self.block["capacity"], len(ids)
        tokens = np.full((1, size), self.block["mask_id"], np.int64)
        tokens[0, :number] = ids
        seen = np.zeros((1, capacity + size), bool)
        seen[0, : self.length] = seen[0, capacity : capacity + number] = True
        positions = np.arange(self.length, self.length + size, dtype=np.int64)[None]
        found = self.graphs.run("block", ids=tokens, positions=positions, seen=seen, keys=self.keys, values=self.values)
        return found[0][0, :number], found[1][..., :number, :], found[2][..., :number, :]

    def finish(self, ids: list[int]) -> None:
        """These tokens will not change any more: remember their keys and values."""
        _, keys, values = self.step(ids)
        place = slice(self.length, self.length + len(ids))
        self.keys[..., place, :], self.values[..., place, :] = keys, values
        self.length += len(ids)


def draw_codes(graphs: Graphs, scale: float, steps: int, threshold: float) -> list[int]:
    """The codes of the image that `graphs.json` has a prompt for."""
    block, decoder, prompt = (graphs.notes[name] for name in ("block", "decoder", "prompt"))
    count, first = decoder["rows_of_codes"] * decoder["columns_of_codes"], 0
    size, mask = block["block_length"], block["mask_id"]
    start, codes = len(prompt["ids"]), slice(block["first_code"], block["first_code"] + block["codes"])
    branches = [Branch(graphs, prompt["ids"], start)]
    if scale != 1:
        branches.append(Branch(graphs, prompt["unconditional"], start))
    answer = [mask] * count
    while first < count:
        last = min(count, ((start + first) // size + 1) * size - start)  # the open block ends here
        for step in range(steps):
            open_places = [i for i in range(first, last) if answer[i] == mask]
            if not open_places:
                break
            logits = [branch.step([*branch.rest, *answer[first:last]])[0][-(last - first) :, codes] for branch in branches]
            guided = logits[0] if scale == 1 else logits[1] + scale * (logits[0] - logits[1])
            share = np.exp(guided - guided.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            sure = {i: float(share[i - first].max()) for i in open_places}
            least = size // steps + (step < size % steps)
            ranked = sorted(open_places, key=lambda i: -sure[i])
            accepted = ranked[: max(least, sum(value > threshold for value in sure.values()))]
            for i in accepted:
                answer[i] = codes.start + int(share[i - first].argmax())
        for branch in branches:
            branch.finish([*branch.rest, *answer[first:last]])
            branch.rest = []
        first = last
        print(f"{first} of {count} codes")
    return [token - codes.start for token in answer]


def decode(graphs: Graphs, codes: list[int], seed: int) -> Image.Image:
    """The image of the codes, by the turbo decoder's rule: predict the data, mix with fresh noise, until the time is 1."""
    notes = graphs.notes["decoder"]
    if notes["decoder"] != "turbo":
        raise SystemExit("this example has the turbo decoder's sampler: export with --decoder turbo")
    noise = np.random.default_rng(seed)
    (tokens,) = graphs.run("condition", codes=np.array([codes], np.int64))
    state = noise.standard_normal(notes["latents"])
    for step in range(notes["steps"]):
        now, following = step / notes["steps"], (step + 1) / notes["steps"]
        time = np.array([now], np.float32)
        (velocity,) = graphs.run("evaluation", state=state.astype(np.float32), time=time, tokens=tokens)
        data = state + (1 - now) * velocity
        state = following * data + (1 - following) * noise.standard_normal(state.shape)
    (pixels,) = graphs.run("pixels", latents=data.astype(np.float32))
    return Image.fromarray((pixels[0] * 255).astype(np.uint8).transpose(1, 2, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("drawn.png"))
    parser.add_argument("--codes", type=json.loads, help="a JSON list: decode these; default: draw the prompt of the export")
    parser.add_argument("--scale", type=float, default=2.0, help="of guidance; 1: none")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.98)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    graphs = Graphs(options.graphs)
    codes = options.codes
    if codes is None:
        codes = draw_codes(graphs, options.scale, options.steps, options.threshold)
    decode(graphs, codes, options.seed).save(options.out)
    print(json.dumps(codes))
    print(options.out)


if __name__ == "__main__":
    main()

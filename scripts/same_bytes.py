"""Does a change leave every answer of the shipped model as it was? Hashes of all tasks at fixed seeds, written or compared.

    python scripts/same_bytes.py before.json             # in the old checkout: writes the hashes
    python scripts/same_bytes.py before.json --compare   # in the new one: exit code 1 and a line for each difference

Pixels depend on the processor and on the number of threads; compare runs of one machine only. Only arguments that have kept
their names are used, so that the script runs in old and new checkouts alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llada_uni.model import UniModel

SEEDS = 20
PROMPTS = (
    "a cartoon cat at the top left and a 3d robot at the bottom right on blue",
    "three flat apples in the middle row on green",
    "the number 47 in cartoon style on yellow",
    "a flat fox above a flat tree on white",
)


def answers(model: UniModel) -> Iterator[tuple[str, Any]]:
    """(name, result) of every task, small enough for some minutes of two cores."""
    for seed in range(SEEDS):
        yield f"generate {seed}", model.generate_image(PROMPTS[seed % len(PROMPTS)], seed=seed, temperature=0.7 * (seed % 2))
    for seed, rule in enumerate(("threshold", "left", "adaptive", "factor")):
        yield f"generate {rule}", model.generate_image(PROMPTS[seed], seed=seed, rule=rule)
    yield "generate base", model.generate_image(PROMPTS[0], seed=1, decoder="base", decoder_steps=10)
    yield "generate small block", model.generate_image(PROMPTS[0], seed=1, block_length=8, top_k=50, top_p=0.9, temperature=1.0)
    yield "generate size", model.generate_image(PROMPTS[0], 128, 256, seed=2)
    yield "generate guided", model.generate_image(PROMPTS[0], seed=1, cfg_scale=3.0)
    for seed, prompt in enumerate(("two plus one apples", "the number after 2, 4, 6")):
        yield f"thinking {seed}", model.generate_image(prompt, seed=seed, thinking=True)
    first = model.generate_image(PROMPTS[0], seed=1).image
    second = model.generate_image(PROMPTS[3], seed=2).image
    edits = ("replace the cat with a fox", "remove the robot", "move the cat to the bottom left", "make it flat")
    for seed, instruction in enumerate(edits):
        yield f"edit {seed}", model.edit_image(first, instruction, seed=seed)
    yield "edit two", model.edit_image([first, second], "put the fox of the second picture into the first", seed=1)
    scaled = {"text_scale": 3.0, "image_scale": 1.5, "rescale": 0.5}
    yield "edit guided", model.edit_image(first, edits[0], seed=1, **scaled)
    mask = np.zeros((first.height, first.width), np.uint8)
    mask[: first.height // 3] = 255
    for seed in range(2):
        whole = "a cartoon dog at the top left and a 3d robot at the bottom right on blue"
        yield f"inpaint {seed}", model.inpaint(first, Image.fromarray(mask), whole, seed=seed)
    questions = ("what is at the top left?", "how many robots are there?", "describe the picture", "is there a fox?")
    for question in questions:
        yield f"understand {question}", model.understand(first, question, seed=0)
    yield "understand two", model.understand([first, second], "which picture has a fox?", seed=0)
    yield "understand sampled", model.understand(first, questions[2], seed=5, temperature=1.0, top_p=0.9)
    said = [{"role": "user", "content": [first, "what is at the top left?"]}]
    chatted = model.chat(said, seed=0)
    yield "chat", chatted
    said += [{"role": "assistant", "content": chatted.text}, {"role": "user", "content": "which style is it?"}]
    yield "chat again", model.chat(said, seed=0, modalities=("text",))
    for seed in range(3):
        for number, event in enumerate(model.interleave("tell a story about a fox and a robot", seed=seed, max_frames=3)):
            yield f"story {seed} {number}", event
    codes = model.encode_image(first)
    yield "encode", codes
    yield "decode", model.decode_codes(codes, seed=4)


def digest(result: Any) -> str:
    """Of the pixels, the codes and the text of a result or an event."""
    pieces = [str(getattr(result, "text", None)), str(getattr(result, "reason", None))]
    parts = getattr(result, "parts", None) or ()
    for one in (result, *parts):
        codes, image = getattr(one, "codes", None), getattr(one, "image", None)
        if codes is not None:
            pieces.append(str(codes if isinstance(codes, tuple) else codes.codes))
        if image is not None:
            pieces.append(hashlib.sha256(image.tobytes()).hexdigest())
        if isinstance(one, str):
            pieces.append(one)
    return hashlib.sha256("|".join(pieces).encode()).hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON of hashes")
    parser.add_argument("--compare", action="store_true", help="compare with the file in place of writing it")
    options = parser.parse_args()
    made = {name: digest(result) for name, result in answers(UniModel.from_pretrained())}
    if not options.compare:
        options.file.write_text(json.dumps(made, indent=1))
        print(f"{len(made)} hashes in {options.file}")
        return 0
    before = json.loads(options.file.read_text())
    changed = [name for name in sorted({*before, *made}) if before.get(name) != made.get(name)]
    for name in changed:
        print(f"changed: {name}")
    print(f"{len(made) - len(changed)} of {len(before)} as before")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())

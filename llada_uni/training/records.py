"""Samples of the world as token records for the backbone: texts by the prompt format, pictures by the image tokenizer.

    python -m llada_uni.training.records --tokenizer runs/tokenizer --out runs/records.pt --count 120000

A record is one conversation: ids and, for each id, its kind: CONTEXT (given), TEXT (the model writes it) or CODE (the
model draws it). What the caller of the model puts there itself (the header of a plain text-to-image or editing
answer, the end mark of an image) is CONTEXT. Codes are extracted once, here, and never during training.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.image.codes import ImageCodes
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.prompts import UNCONDITION, PromptFormat, Turn
from llada_uni.text import TextTokenizer, train_tokenizer
from llada_uni.training.images import to_images
from llada_uni.training.loop import save_atomic
from llada_uni.training.tokenizer import SIDE, TokenizerObjective
from llada_uni.world.concepts import COLORS, CONCEPTS, STYLES
from llada_uni.world.render import render_array
from llada_uni.world.scene import Scene
from llada_uni.world.tasks import Sample, sample_task

SYSTEM_OF = {
    "t2i": "generate",
    "think": "generate_thinking",
    "understand": "understand",
    "edit": "edit",
    "story": "interleave",
    "dialogue": "understand",
}
SHARES = {"t2i": 0.30, "understand": 0.27, "edit": 0.20, "story": 0.12, "think": 0.05, "dialogue": 0.06}
UNCONDITIONAL_SHARE = 0.1
READING = {
    ("understand", "what"): 0.22,
    ("understand", "caption"): 0.20,
    ("understand", "list"): 0.08,
    ("understand", "where"): 0.10,
    ("understand", "count"): 0.08,
    ("understand", "presence"): 0.05,
    ("understand", "relation"): 0.03,
    ("edit", "remove"): 0.06,
    ("edit", "replace"): 0.08,
    ("edit", "style"): 0.05,
    ("edit", "move"): 0.05,
}
"""Kinds that need a place in the picture to be read: their answers are short, so they are learnt last."""


def texts_of(sample: Sample) -> Iterable[str]:
    """Every text of a sample, for training the text tokenizer."""
    for turn in sample.turns:
        yield from (p for p in turn.parts if isinstance(p, str))
    yield from (p for p in sample.answer if isinstance(p, str))


def build_text_tokenizer(samples: int = 20000, vocab_size: int = 640, seed: int = 5) -> TextTokenizer:
    """A byte-level BPE of the world's words, from training samples alone."""
    rng = random.Random(seed)
    tasks, weights = list(SHARES), list(SHARES.values())
    corpus: list[str] = []
    for _ in range(samples):
        corpus += texts_of(sample_task(rng, rng.choices(tasks, weights)[0], "train"))
    words = [*CONCEPTS, *(c.plural for c in CONCEPTS.values()), *STYLES, *COLORS]
    keep = [form for w in words for form in (w, " " + w)] + [UNCONDITION]
    return train_tokenizer(corpus, vocab_size, keep)


def encode_scenes(objective: TokenizerObjective, scenes: list[Scene], batch: int = 64) -> dict[Scene, ImageCodes]:
    """Codes of rendered scenes."""
    grid = SIDE // objective.vision.patch_size
    out: dict[Scene, ImageCodes] = {}
    with torch.inference_mode():
        for start in range(0, len(scenes), batch):
            part = scenes[start : start + batch]
            codes = objective.codes(to_images([render_array(s, SIDE) for s in part])).tolist()
            out.update((s, ImageCodes(tuple(c), grid, grid)) for s, c in zip(part, codes, strict=True))
    return out


def record_of(
    sample: Sample, codes: dict[Scene, ImageCodes], fmt: PromptFormat, unconditional: bool
) -> tuple[list[int], list[int]]:
    """ids and kinds of one sample. With `unconditional`, the user's words are replaced (classifier-free guidance)."""

    def parts(items: Iterable[str | Scene]) -> tuple[str | ImageCodes, ...]:
        return tuple(p if isinstance(p, str) else codes[p] for p in items)

    system = SYSTEM_OF[sample.task]
    turns = [Turn(t.role, parts(t.parts)) for t in sample.turns]
    ids = fmt.unconditional(system, turns) if unconditional else fmt.prompt(system, turns)
    kinds = [CONTEXT] * len(ids)
    header_given = sample.task in ("t2i", "edit")
    for part in parts(sample.answer):
        if isinstance(part, str):
            new = fmt.text.encode(part)
            ids += new
            kinds += [TEXT] * len(new)
        else:
            header = fmt.image_header(part.height, part.width)
            body = [fmt.image_token_offset + c for c in part.codes]
            ids += [*header, *body, fmt.text.image_end_id]
            kinds += [CONTEXT if header_given else TEXT] * len(header) + [CODE] * len(body) + [CONTEXT]
    if not header_given:
        ids.append(fmt.text.eos_id)
        kinds.append(TEXT)
    return ids, kinds


def load_objective(folder: str) -> TokenizerObjective:
    """The trained tokenizer of a run, as an objective whose `codes` takes batches."""
    trained = ImageTokenizer.from_pretrained(f"{folder}/image_tokenizer")
    objective = TokenizerObjective().eval()
    objective.vision.load_state_dict(trained.vision.state_dict())
    objective.vq.load_state_dict(trained.vq.state_dict())
    return objective


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", default="runs/tokenizer")
    parser.add_argument("--out", default="runs/records.pt")
    parser.add_argument("--text", default="runs/tokenizer.json")
    parser.add_argument("--count", type=int, default=120000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--reading", action="store_true", help="more of what is learnt late: reading places, and edits")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not Path(args.text).exists():
        build_text_tokenizer().save(args.text)
    text = TextTokenizer.from_file(args.text)
    offset = -(-len(text) // 64) * 64
    fmt = PromptFormat(text, offset)
    objective = load_objective(args.tokenizer)
    rng = random.Random(args.seed)
    tasks, weights = list(SHARES), list(SHARES.values())
    ids: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    which: list[int] = []
    for start in range(0, args.count, 2000):
        if args.reading:
            chosen = rng.choices(list(READING), list(READING.values()), k=2000)
            samples = [sample_task(rng, task, "train", kind=kind) for task, kind in chosen]
        else:
            samples = [sample_task(rng, task, "train") for task in rng.choices(tasks, weights, k=2000)]
        scenes = list({s for sample in samples for s in sample.scenes()})
        codes = encode_scenes(objective, scenes)
        for sample in samples:
            drop = sample.task in ("t2i", "edit") and rng.random() < UNCONDITIONAL_SHARE
            i, k = record_of(sample, codes, fmt, drop)
            ids.append(np.array(i, np.int16))
            kinds.append(np.array(k, np.int8))
            which.append(tasks.index(sample.task))
        if start % 20000 == 0:
            print(f"records {start + 2000}/{args.count}", flush=True)
    lengths = torch.tensor([len(i) for i in ids])
    data: dict[str, Tensor | int] = {
        "ids": torch.from_numpy(np.concatenate(ids)),
        "kinds": torch.from_numpy(np.concatenate(kinds)),
        "ends": lengths.cumsum(0),
        "task": torch.tensor(which, dtype=torch.int8),
        "image_token_offset": offset,
    }
    save_atomic(data, Path(args.out))
    Path(args.out).with_suffix(".json").write_text(json.dumps({"image_token_offset": offset, "seed": args.seed}))
    for n, task in enumerate(tasks):
        chosen = lengths[data["task"] == n].float()
        if len(chosen) == 0:
            continue
        print(f"{task}: {len(chosen)} records, mean length {chosen.mean():.1f}, longest {int(chosen.max())}")


if __name__ == "__main__":
    main()

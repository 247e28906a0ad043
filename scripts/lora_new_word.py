"""A new word by LoRA, with and without the vocabulary's vectors: what the shipped model makes of it, in numbers.

    python -m scripts.lora_new_word runs/world/new-word [--word zorp] [--steps 120]

A user's records: scenes with the thing that the user calls by the new word, the question what stands at its place, and the word
as the answer. The tokens of such a word were never learned by the shipped model. Two runs of recipes/world/lora.yaml, one as it
is and one with lora.embeddings and lora.head; printed: nats a token of the answers to held-out questions, before and after.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from pathlib import Path

from llada_uni.data.extract import Extraction, extract
from llada_uni.files import shipped
from llada_uni.training.recipes.recipe import read_recipe, train
from llada_uni.world.concepts import CELLS, COLORS, POSITIONS, STYLES, THINGS
from llada_uni.world.render import render
from llada_uni.world.scene import Thing, placed
from llada_uni.world.wordings import Speaker

RECORDS = 240
NAMED = Thing("dog", "3d")  # what the user has a name of their own for
WAYS = {"adapters alone": {}, "with embeddings and head": {"embeddings": True, "head": True}}


def write_records(folder: Path, word: str, seed: int = 0) -> None:
    """Questions whose answer is the new word, as JSONL with pictures."""
    rng, lines = random.Random(seed), []
    say = Speaker(rng, "train")
    others = [name for name in THINGS if name != NAMED.concept]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number in range(RECORDS):
        things = [NAMED, *(Thing(name, rng.choice(STYLES)) for name in rng.sample(others, rng.choice((1, 2))))]
        cells = rng.sample(CELLS, len(things))
        scene = placed(dict(zip(cells, things, strict=True)), rng.choice(tuple(COLORS)))
        name = f"pictures/{number:04}.png"
        render(scene).save(folder / name)
        asked = [{"type": "image", "image": name}, {"type": "text", "text": say.pick("what").format(p=POSITIONS[cells[0]])}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": word}]
        lines.append(json.dumps({"task": "understand", "messages": messages}))
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def answer_loss(out: Path, tokens: Path, steps: int, lora: dict[str, bool], rate: float = 2e-3) -> float:
    """Nats a token of held-out answers after a run."""
    settings = json.dumps({"rank": 16, "alpha": 32, **lora})
    model = shipped.shipped("models") / shipped.MODEL
    changes = [
        f"out={out}", f"options.data={{{tokens}: 1.0}}", f"options.init={model}",
        f"options.lora={settings}", f"loop.steps={steps}", f"loop.evaluate_every={steps}", f"loop.lr={rate}",
        "loop.log_every=20", "loop.tensorboard=false", "options.samples=8", "options.heldout_share=0.2",
        "options.heldout_samples=48",
        "options.masking.everything=1.0",
    ]  # fmt: skip
    train(read_recipe(shipped.shipped("recipes") / "world" / "lora.yaml", changes))
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return next(row["eval/nll/understand"] for row in reversed(rows) if "eval/nll/understand" in row)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--word", default="zorp")
    parser.add_argument("--steps", type=int, default=120)
    args = parser.parse_args()
    tokens = args.out / "tokens"
    if not (tokens / "manifest.json").is_file():
        write_records(args.out / "records", args.word)
        extract(Extraction(str(args.out / "records"), str(tokens), str(shipped.shipped("models") / shipped.MODEL)))
    warnings.simplefilter("default")
    found = {"before": answer_loss(args.out / "before", tokens, 1, {}, rate=0.0)}
    for number, (name, lora) in enumerate(WAYS.items()):
        found[name] = answer_loss(args.out / f"run{number}", tokens, args.steps, lora)
    for name, loss in found.items():
        print(f"{name:28} {loss:.2f} nats a token of held-out answers")


if __name__ == "__main__":
    main()

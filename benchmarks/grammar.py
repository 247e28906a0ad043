"""JSON held to random schemas: does every answer parse and fit its schema, and what does a token cost beside free text?

    python -m benchmarks.grammar answers MODEL --out build/grammar.jsonl     # 1,000 prompts and schemas; resumes
    python -m benchmarks.grammar speed MODEL                                 # held and free, in turns

`answers` asks the model as it is and one of the same shape with random weights. A case (prompt, schema, rule, temperature) is a
function of its number alone.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import torch

from llada_uni.backbone import Backbone
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.grammar.grammar import expression_of
from llada_uni.generation.params import TextSampling
from llada_uni.generation.settings import Settings
from llada_uni.tasks.find import find_model
from llada_uni.tasks.parts import Parts, choose_device, choose_dtype
from llada_uni.text.prompts import Turn

WORDS = "cat dog fox red blue apple how many what is where top left bottom right color style picture and the a of near".split()
RULES = ("left", "threshold", "adaptive", "t2t", "t2m")
TOGETHER = 20  # cases in one batch
SCALARS = ["string", "integer", "number", "boolean", "enum", "format", "any"]
SPEED = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema of up to three levels with every kind of keyword."""
    kind = rng.choice(["object", "array"] if depth == 0 else SCALARS)
    if depth == 1 and rng.random() < 0.25:
        kind = rng.choice(["object", "array", "null or"])
    if kind == "object":
        names = rng.sample(WORDS, rng.randint(1, 3))
        needed = [name for name in names if rng.random() < 0.7]
        return {"type": "object", "properties": {n: random_schema(rng, depth + 1) for n in names}, "required": needed}
    if kind == "array":
        least, items = rng.randint(0, 2), random_schema(rng, depth + 1)
        return {"type": "array", "items": items, "minItems": least, "maxItems": least + rng.randint(0, 2)}
    if kind == "null or":
        return {"anyOf": [random_schema(rng, depth + 1), {"type": "null"}]}
    if kind == "string":
        return rng.choice([{"type": "string"}, {"type": "string", "minLength": 1, "maxLength": rng.randint(1, 9)}])
    if kind == "integer":
        low = rng.randint(-200, 200)
        return rng.choice([{"type": "integer"}, {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 500)}])
    if kind == "number":
        return rng.choice([{"type": "number"}, {"type": "number", "minimum": 0, "maximum": rng.randint(1, 100)}])
    if kind == "enum":
        return {"enum": rng.sample([*WORDS, 1, 2, None, True], rng.randint(1, 4))}
    if kind == "format":
        return {"type": "string", "format": rng.choice(["date", "uuid", "ipv4"])}
    return {"type": "boolean"} if kind == "boolean" else {"pattern": "^[A-Z][a-z]{1,5}\\d?$"}


class Case:
    """One prompt, schema and way of decoding, of a number."""

    def __init__(self, parts: Parts, number: int) -> None:
        rng = random.Random(f"grammar {number}")
        self.number, self.schema = number, random_schema(rng)
        self.prompt = " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))
        regex = expression_of(json_schema=self.schema)
        assert regex is not None, "there is a schema"
        grammar = parts.grammars.of(regex)
        rule, temperature = rng.choice(RULES), rng.choice([0.0, 0.0, 1.0])
        sampling = TextSampling(rule=rule, temperature=temperature, threshold=rng.choice([0.7, 0.95]))
        self.settings = Settings(
            mask_id=parts.text.mask_id,
            block_length=parts.defaults.block_length,
            gen_length=grammar.fast.shortest + rng.choice([0, 5, 20, 60]),
            stop_ids=(parts.text.eos_id,),
            grammar=grammar,
            **sampling.sampling(),
        )
        self.ids = parts.format.prompt("understand", [Turn("user", (self.prompt,))])

    def request(self) -> Request:
        return Request(self.ids, self.settings, generator=torch.Generator().manual_seed(self.number))

    def judged(self, parts: Parts, tokens: list[int]) -> tuple[str, str | None]:
        """(text, what is wrong with it or None)."""
        text = parts.text.decode(tokens)
        if tokens[-1] != parts.text.eos_id:
            return text, "not finished"
        try:
            value = json.loads(text)
        except ValueError as error:
            return text, f"no JSON: {error}"
        valid = jsonschema_rs.validator_for(self.schema, validate_formats=True).is_valid(value)
        return text, None if valid else "not of its schema"


def answers(parts: Parts, count: int, out: Path) -> None:
    done = {json.loads(line)["number"] for line in out.read_text().splitlines()} if out.exists() else set()
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    blank = Backbone(parts.config).eval()
    engines = {"shipped": BatchEngine(parts.backbone), "random": BatchEngine(blank)}
    waiting = [number for number in range(count) if number not in done]
    for begin in range(0, len(waiting), TOGETHER):
        cases = [Case(parts, number) for number in waiting[begin : begin + TOGETHER]]
        lines = [{"number": case.number, "prompt": case.prompt, "schema": case.schema} for case in cases]
        for name, engine in engines.items():
            for case, made, line in zip(cases, engine.run([case.request() for case in cases]), lines, strict=True):
                text, wrong = case.judged(parts, made.tokens)
                line[name] = {"text": text, "wrong": wrong, "tokens": len(made.tokens), "evaluations": made.evaluations}
        with out.open("a") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        print(f"{len(done) + begin + len(cases)} of {count}", flush=True)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    for name in engines:
        wrong = [line for line in found if line[name]["wrong"]]
        print(f"{name}: {len(found) - len(wrong)} of {len(found)} parse and fit their schema")
        for line in wrong[:5]:
            print("  ", line["number"], line[name])


def speed(parts: Parts, seconds: float) -> None:
    """Milliseconds a token and an evaluation, held and free, on equal prompts in turns."""
    engine, form = BatchEngine(parts.backbone), parts.format
    regex = expression_of(json_schema=SPEED)
    assert regex is not None, "there is a schema"
    grammar = parts.grammars.of(regex)
    sampling = parts.defaults.understand.text
    spent = {"held": [0.0, 0, 0], "free": [0.0, 0, 0]}

    def settings(held: bool) -> Settings:
        return Settings(
            mask_id=parts.text.mask_id, block_length=parts.defaults.block_length, gen_length=64,
            stop_ids=(parts.text.eos_id,), grammar=grammar if held else None, **sampling.sampling(),
        )  # fmt: skip

    rng = random.Random(0)
    for turn in _for(seconds):
        ids = form.prompt("understand", [Turn("user", (" ".join(rng.choices(WORDS, k=8)),))])
        for name in ("held", "free") if turn % 2 else ("free", "held"):
            start = time.perf_counter()
            (made,) = engine.run([Request(ids, settings(name == "held"))])
            if turn:  # the first one warms up
                numbers = (time.perf_counter() - start, len(made.tokens), made.evaluations)
                spent[name] = [a + b for a, b in zip(spent[name], numbers, strict=True)]
    per_token = {name: 1000 * total / max(1, tokens) for name, (total, tokens, _) in spent.items()}
    per_step = {name: 1000 * total / max(1, steps) for name, (total, _, steps) in spent.items()}
    for name, (total, tokens, steps) in spent.items():
        print(f"{name}: {tokens} tokens, {steps} evaluations, {total:.1f} s; {per_token[name]:.2f} ms a token, "
              f"{per_step[name]:.2f} ms an evaluation")  # fmt: skip
    ratios = (per_token["held"] / per_token["free"], per_step["held"] / per_step["free"])
    print(f"held over free: {ratios[0]:.2f} a token, {ratios[1]:.2f} an evaluation")


def _for(seconds: float) -> Iterator[int]:
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        yield turn
        turn += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["answers", "speed"])
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--out", type=Path, default=Path("build/grammar.jsonl"))
    arguments = parser.parse_args()
    device = choose_device("cpu")
    parts = Parts(find_model(arguments.model), device, choose_dtype(None, device))
    if arguments.what == "answers":
        answers(parts, arguments.count, arguments.out)
    else:
        speed(parts, arguments.seconds)


if __name__ == "__main__":
    main()

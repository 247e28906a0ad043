"""One generation after another: our engine, plain and with SPRINT, against the recomputing loop and diffusers' pipeline.

    python -m benchmarks.generation [--quick] [--only NAMES] [--json FILE] [--threads N]

Middle-size backbone with random weights (greedy, the same tokens must come out of all sides): an image of 1024 codes with
guidance, text of 512 tokens behind prefixes of 128 and 1024, and of 128 tokens behind 4096 (on all sides, because the others
compute the prefix at every step). Random weights are never sure, so a block takes all its steps. The recomputing loop is
the oracle, which is the released algorithm; diffusers' pipeline has no guidance, so ours is built into the model it calls
(see `peers`). No engine of the kind of llama.cpp that could be installed runs these models, so the loop also runs as such an
engine would: with int4 experts. Then the shipped model with real prompts: thoughts and pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks import common
from benchmarks.common import PeakMemory, Row
from benchmarks.peers import pipeline_tokens
from llada_uni.backbone import Backbone, calibration
from llada_uni.backbone.moe import MixtureOfExperts
from llada_uni.backbone.quantized import MATRICES, use_quantized_experts
from llada_uni.backbone.quantized_formats import make_scheme
from llada_uni.generation import engine, oracle
from llada_uni.generation.settings import Generation, Guidance, Settings, Sprint

SPRINT = Sprint(r_text=1.0, r_img=0.8)


@dataclass(frozen=True)
class Case:
    """One thing to generate. prompts: with their branches of guidance; repeats: alternating runs."""

    name: str
    settings: Settings
    prompts: Sequence[tuple[list[int], dict[str, list[int]] | None]]
    repeats: int = 1

    def generations(self, generate: Callable[..., Generation], model: Backbone, settings: Settings) -> list[Generation]:
        return [generate(model, prompt, settings, branches) for prompt, branches in self.prompts]


@dataclass
class Side:
    """A way to generate a case: keeps its latest results, and the most memory a run took."""

    run: Callable[[], list[Any]]
    results: list[Any] = field(default_factory=list)
    peak: int = 0

    def __call__(self) -> None:
        with PeakMemory() as memory:
            self.results = self.run()
        self.peak = max(self.peak, memory.bytes)


def text_case(model: Backbone, prefix: int, tokens: int, repeats: int) -> Case:
    """Text of 4 steps a block. The mask is none of the allowed ids, because the pipeline would choose it."""
    mask = common.mask_of(model)
    settings = Settings(mask_id=mask, steps=4, gen_length=tokens, allowed=range(mask))
    return Case(f"text {tokens}, prefix {prefix}", settings, [(common.random_prompt(model, prefix, 1), None)], repeats)


def image_case(model: Backbone, codes: int) -> Case:
    """An image with simple guidance, 8 steps a block, behind a prompt that ends at a border."""
    config = model.config
    settings = Settings(
        mask_id=common.mask_of(model),
        steps=8,
        gen_length=codes,
        allowed=range(config.image_token_offset, config.vocab_size),
        guidance=Guidance.simple(2.0),
    )
    branches = {"uncond": common.random_prompt(model, 44, 2)}
    return Case(f"image {codes}, guided", settings, [(common.random_prompt(model, 64, 1), branches)])


def shipped_cases(repeats: int) -> tuple[Backbone, list[Case]]:
    """The shipped model at its own settings: pictures of 16 codes with guidance, and thoughts."""
    from llada_uni.model import UniModel
    from llada_uni.text.prompts import Turn

    parts = UniModel.from_pretrained("world").parts
    form, defaults = parts.format, parts.defaults.generate
    cell = parts.pixels_per_code
    header = form.image_header(defaults.height // cell, defaults.width // cell)
    wishes = ("a red circle on white", "two blue squares", "a green star left of a yellow heart", "three cats")
    turns = [[Turn("user", (wish,))] for wish in wishes]
    uncond = {"uncond": [*form.unconditional("generate", turns[0]), *header]}
    offset = parts.config.image_token_offset
    pictures = Settings(
        mask_id=form.text.mask_id,
        steps=defaults.codes.steps,
        threshold=defaults.codes.threshold,
        gen_length=defaults.height * defaults.width // cell**2,
        allowed=range(offset, offset + parts.codebook_size),
        guidance=Guidance.simple(defaults.cfg_scale),
    )
    words = Settings(
        mask_id=form.text.mask_id,
        steps=defaults.text.steps,
        gen_length=defaults.text.max_tokens,
        stop_ids=(form.text.eos_id, form.text.boi_id),
    )
    return parts.backbone, [
        Case("shipped: 4 pictures", pictures, [([*form.prompt("generate", t), *header], uncond) for t in turns], repeats),
        Case("shipped: 4 thoughts", words, [(form.prompt("generate_thinking", t), None) for t in turns], repeats),
    ]


def compare(model: Backbone, case: Case, name: str, theirs: Side) -> Row:
    """Ours against one other side; they must give the same tokens."""
    common.progress(f"{case.name}: against {name}")
    ours = Side(lambda: case.generations(engine.generate, model, case.settings))
    fast, slow = common.alternate(ours, theirs, case.repeats)
    tokens = [result.tokens for result in ours.results]
    others = [getattr(result, "tokens", result) for result in theirs.results]
    if tokens != others:
        raise AssertionError(f"{case.name}: ours and {name} give different tokens")
    count = sum(map(len, tokens))
    more = {
        "evaluations": sum(result.evaluations for result in ours.results),
        "ours MiB": ours.peak / 2**20,
        "theirs MiB": theirs.peak / 2**20,
    }
    return Row(case.name, name, "tokens/s", count / fast, count / slow, slow / fast, more)


def loop_row(model: Backbone, case: Case, name: str, loop: Callable[[], list[Generation]]) -> Row:
    """Ours against a recomputing loop whose tokens may be others (rounding): how many are equal is told."""
    common.progress(f"{case.name}: against {name}")
    ours, theirs = Side(lambda: case.generations(engine.generate, model, case.settings)), Side(loop)
    fast, slow = common.alternate(ours, theirs, 1)
    pairs = [pair for a, b in zip(ours.results, theirs.results, strict=True) for pair in zip(a.tokens, b.tokens, strict=False)]
    more = {"equal tokens": sum(a == b for a, b in pairs) / len(pairs), "theirs MiB": theirs.peak / 2**20}
    return Row(case.name, name, "tokens/s", len(pairs) / fast, len(pairs) / slow, slow / fast, more)


def torch_loop(model: Backbone, case: Case) -> list[Generation]:
    """The recomputing loop on torch's products, as it was before products were compiled here."""
    with calibration.using("grouped"):
        return case.generations(oracle.generate, model, case.settings)


def int4_of(model: Backbone) -> Backbone:
    """A copy with int4 experts."""
    with torch.inference_mode(False):
        small, scheme = copy.deepcopy(model), make_scheme("int4")
        use_quantized_experts(small, scheme)
        for layer, source in zip(small.model.layers, model.model.layers, strict=True):
            if isinstance(layer.mlp, MixtureOfExperts):
                for name in MATRICES:
                    for expert, weight in enumerate(getattr(source.mlp.experts, name).detach()):
                        getattr(layer.mlp.experts, name).put(expert, weight)
    return small


def sprint_row(model: Backbone, case: Case) -> Row:
    """SPRINT against the plain engine: other tokens, so only speed is compared here."""
    common.progress(f"{case.name}: SPRINT against plain")
    settings = case.settings.replace(sprint=SPRINT, rule="adaptive", threshold=0.93)
    ours = Side(lambda: case.generations(engine.generate, model, settings))
    plain = Side(lambda: case.generations(engine.generate, model, case.settings))
    fast, slow = common.alternate(ours, plain, max(2, case.repeats))
    counts = [sum(len(result.tokens) for result in side.results) for side in (ours, plain)]
    work = [sum(result.evaluations for result in side.results) for side in (ours, plain)]
    mine, other = counts[0] / fast, counts[1] / slow
    more = {"evaluations": work[0], "plain evaluations": work[1]}
    return Row(case.name, "SPRINT against plain", "tokens/s", mine, other, mine / other, more)


PEERS = ("recomputing loop", "diffusers pipeline", "loop on torch's products", "loop in int4", "SPRINT against plain")


def rows_of(model: Backbone, cases: Sequence[Case], peers: Sequence[str], only: str) -> Iterator[Row]:
    """A row a case and peer; only: those whose "case: peer" has these words in it, "" for all."""
    for case in cases:
        wanted = [peer for peer in peers if all(word in f"{case.name}: {peer}" for word in only.split())]
        if wanted:
            case.generations(engine.generate, model, case.settings.replace(gen_length=32, steps=2))  # warm up
        for peer in wanted:
            yield _row(model, case, peer)


def _row(model: Backbone, case: Case, peer: str) -> Row:
    if peer == "recomputing loop":
        return compare(model, case, peer, Side(lambda: case.generations(oracle.generate, model, case.settings)))
    if peer == "diffusers pipeline":
        wrapped = Side(lambda: [pipeline_tokens(model, p, case.settings, b) for p, b in case.prompts])
        return compare(model, case, peer, wrapped)
    if peer == "loop on torch's products":
        return loop_row(model, case, peer, lambda: torch_loop(model, case))
    if peer == "loop in int4":
        small = int4_of(model)
        return loop_row(model, case, peer, lambda: case.generations(oracle.generate, small, case.settings))
    return sprint_row(model, case)


def measure(quick: bool, only: str) -> Iterator[Row]:
    """What matters most comes first: a run may be cut short."""
    middle = common.middle_backbone()
    real = ("recomputing loop", "SPRINT against plain")
    if quick:
        yield from rows_of(middle, [image_case(middle, 128), text_case(middle, 128, 64, 1)], PEERS, only)
    else:
        yield from rows_of(middle, [image_case(middle, 1024), text_case(middle, 1024, 512, 1)], PEERS, only)
    shipped, cases = shipped_cases(1 if quick else 3)
    yield from rows_of(shipped, cases[:1] if quick else cases, real, only)
    if not quick:
        yield from rows_of(middle, [text_case(middle, 128, 512, 1), text_case(middle, 4096, 128, 1)], PEERS, only)


def main(given: Sequence[str] | None = None) -> int:
    only = {"default": "", "help": "words that 'case: peer' must have in it, such as 'image int4'"}
    options = common.start(common.arguments(__doc__, only=only), given)
    with torch.inference_mode():
        return common.run(lambda: measure(options.quick, options.only), options.json)


if __name__ == "__main__":
    raise SystemExit(main())

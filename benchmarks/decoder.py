"""From codes to a picture, how fast: base against turbo, parts kept against read again, batches, the condition once.

    python -m benchmarks.decoder [--model DIR] [--quick] [--json FILE] [--threads N]

Both sides of a row use the same weights, codes and seeds. Peers: base's 50 steps with guidance; reading the parts again for
every picture, as the released program does; one picture after the other; diffusers' forward, which refines the condition
at every step.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Row, alternate, arguments, progress, run, start
from llada_uni.decoder.decode import ImageDecoder
from llada_uni.decoder.sampling import turbo_sample
from llada_uni.image.codes import ImageCodes
from llada_uni.tasks.parts import find_model

BATCH = 4


def random_codes(decoder: ImageDecoder, side: int, count: int) -> list[ImageCodes]:
    """`count` grids of side x side codes, drawn from a seed."""
    rng = random.Random(0)
    size = decoder.sigvq.codebook_size
    return [ImageCodes(tuple(rng.randrange(size) for _ in range(side * side)), side, side) for _ in range(count)]


def generators(count: int) -> list[torch.Generator]:
    """One for each picture, seeded by its number."""
    return [torch.Generator().manual_seed(i) for i in range(count)]


def library_latents(decoder: ImageDecoder, codes: ImageCodes, steps: int) -> torch.Tensor:
    """What `decoder.latents(codes, "turbo", steps)` gives, by the library's own forward at every step."""
    model, condition = decoder.transformer("turbo"), list(decoder.condition(codes))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(decoder.latent_shape(codes, "turbo"), generator=generator)
    patch = model.config.all_patch_size[0]

    def velocity(state: torch.Tensor, t: float) -> torch.Tensor:
        times = torch.full((1,), t)
        return model(list(state.float()), times, condition, return_dict=False, patch_size=patch, f_patch_size=1)[0][0][None]

    with torch.no_grad():
        return turbo_sample(velocity, noise, steps, generator)


def measure(model: Path, side: int, quick: bool) -> list[Row]:
    """All rows, for pictures of side x side codes."""
    repeats, many = (1, 10) if quick else (5, 50)
    decoder = ImageDecoder.from_pretrained(model)
    pictures = random_codes(decoder, side, BATCH)
    first = pictures[0]
    assert torch.equal(decoder.latents(first, "turbo", 8), library_latents(decoder, first, 8)), "the two forwards differ"
    height, width = decoder.size(first)
    rows: list[Row] = []

    def row(case: str, peer: str, ours: Callable[[], Any], theirs: Callable[[], Any], times: int = repeats) -> None:
        progress(f"{case} against {peer}")
        ours()
        mine, other = alternate(ours, theirs, times)
        rows.append(Row(f"{case}, {width} x {height}", peer, "s", mine, other, other / mine))

    row("turbo, 8 steps", f"base, {many} steps", lambda: decoder.decode(first, "turbo", 8),
        lambda: decoder.decode(first, "base", many), min(repeats, 3))  # fmt: skip
    row("parts kept", "parts read for every picture", lambda: decoder.decode(first),
        lambda: ImageDecoder.from_pretrained(model).decode(first))  # fmt: skip
    row("condition once", "diffusers' forward", lambda: decoder.latents(first, "turbo", 8),
        lambda: library_latents(decoder, first, 8))  # fmt: skip
    row(f"{BATCH} pictures at once", "one by one", lambda: decoder.decode_many(pictures, generators=generators(BATCH)),
        lambda: [decoder.decode(codes, generator=g) for codes, g in zip(pictures, generators(BATCH), strict=True)])  # fmt: skip
    return rows


def main(given: list[str] | None = None) -> int:
    parser = arguments(
        __doc__,
        model={"help": "model directory (default: the shipped one)"},
        side={"type": int, "default": 4, "help": "codes along each side (default 4)"},
    )
    options = start(parser, given)
    return run(lambda: measure(find_model(options.model), options.side, options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())

"""Teaches a model directory to draw drafts of its codes (image/drafts.py): looks at images, encodes them, learns them back.

source -> different images, spread over it -> codes and small images -> a `Drafter` trained on nine tenths of them -> how far
its drafts of the rest are from the images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from llada_uni.data.some_images import own_tokenizer, some_images
from llada_uni.data.sources import RecordSource
from llada_uni.errors import UserError
from llada_uni.image.drafts import SIDE, WIDTH, Drafter
from llada_uni.image.quality import psnr

STEPS, RATE, CODES = 2000, 4e-3, 2048  # CODES: of a step, in all its images
_HELD = 10  # one image in so many is held back
_FEWEST = 20  # images
_BATCH = 8  # images that go through the tokenizer together
Move = Callable[[str, int, int], None]
Pair = tuple[Tensor, Tensor]  # codes int64 [h, w], pixels uint8 [3, h P, w P]


@dataclass(frozen=True)
class Learned:
    """psnr: dB between images held back and their drafts, at the drafts' size; plain: of one color, the mean, in place of the
    draft, to compare with."""

    drafter: Drafter
    images: int
    held_back: int
    psnr: float
    plain: float


def learn_drafts(
    source: RecordSource, model: str | Path, count: int, seed: int = 0, steps: int = STEPS, on_step: Move | None = None
) -> Learned:
    """Learns from up to `count` images of a source. on_step: called with what is done, and how much of how much.

    UserError without an image tokenizer, or with too few images.
    """
    tokenizer = own_tokenizer(model)
    pairs: list[Pair] = []
    images = some_images(source, count)
    while few := list(islice(images, _BATCH)):
        shaped = [tokenizer.shape(image) for image in few]
        for image, codes in zip(shaped, tokenizer.encode_many(few), strict=True):
            small = image.resize((codes.width * SIDE, codes.height * SIDE), Image.Resampling.BOX)
            pairs.append((torch.tensor(codes.rows()), torch.from_numpy(np.array(small)).permute(2, 0, 1)))
        if on_step is not None:
            on_step("looking at images", len(pairs), count)
    if len(pairs) < _FEWEST:
        raise UserError(f"drafts are learned from at least {_FEWEST} different images; there are {len(pairs)}")
    Random(seed).shuffle(pairs)
    held = len(pairs) // _HELD
    drafter = _trained(pairs[held:], tokenizer.codebook_size, seed, steps, on_step)
    errors = [_errors(drafter, pair) for pair in pairs[:held]]
    draft, plain = (psnr(float(np.mean(error))) for error in zip(*errors, strict=True))
    return Learned(drafter, len(pairs), held, draft, plain)


def _trained(pairs: list[Pair], codebook: int, seed: int, steps: int, on_step: Move | None) -> Drafter:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drafter = Drafter(codebook, WIDTH, SIDE).train()
    alike: dict[torch.Size, list[Pair]] = defaultdict(list)
    for pair in pairs:
        alike[pair[0].shape].append(pair)
    shapes = list(alike)
    optimizer = torch.optim.AdamW(drafter.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    draw = Random(seed)
    for step in range(steps):
        (shape,) = draw.choices(shapes, [len(alike[shape]) for shape in shapes])
        chosen = draw.choices(alike[shape], k=max(1, CODES // shape.numel()))
        codes, pixels = (torch.stack(parts) for parts in zip(*chosen, strict=True))
        loss = F.mse_loss(drafter(codes), pixels.float() / 255)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step("learning drafts", step + 1, steps)
    return drafter.eval().requires_grad_(False)


def _errors(drafter: Drafter, pair: Pair) -> tuple[float, float]:
    """Mean squared errors of the draft and of the mean color."""
    pixels = pair[1].float() / 255
    drawn = drafter(pair[0][None])[0].clamp(0, 1)
    return F.mse_loss(drawn, pixels).item(), F.mse_loss(pixels.mean((1, 2), True).expand_as(pixels), pixels).item()

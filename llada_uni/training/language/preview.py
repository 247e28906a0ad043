"""Images that a backbone draws while it is trained: held-out requests, answered as generation does and decoded.

Token records of drawings -> the prompt of each -> codes from the engine, greedily and without guidance -> the
decoders of another model directory -> a sheet: what the records have above what the backbone draws.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from llada_uni.backbone import Backbone
from llada_uni.data.kinds import CODE
from llada_uni.data.shards import Record
from llada_uni.decoder.decode import ImageDecoder
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Settings
from llada_uni.image.codes import ImageCodes
from llada_uni.training.export import model_folder
from llada_uni.training.loop.sheets import sheet

COUNT = 8
_STEPS = 16  # of a block


@torch.no_grad()
def drawn_sheet(
    backbone: Backbone, records: Iterable[Record], block: int, mask_id: int, preview: str, device: torch.device
) -> dict[str, np.ndarray]:
    """A sheet of the first COUNT records that end in one square of codes; {} without any. preview: a run or model directory
    with a decoder."""
    offset = backbone.config.image_token_offset
    chosen = [found for record in records if (found := _drawing(record)) is not None][:COUNT]
    if not chosen:
        return {}
    allowed = range(offset, backbone.config.vocab_size)

    def settings(count: int) -> Settings:
        return Settings(mask_id=mask_id, steps=_STEPS, block_length=block, allowed=allowed, gen_length=count)

    requests = [Request(prompt.tolist(), settings(len(codes))) for prompt, codes in chosen]
    answers = [result.tokens for result in BatchEngine(backbone).run(requests)]
    decoder = ImageDecoder.from_pretrained(model_folder(preview), device)
    rows = []
    for grids in ([codes.tolist() for _, codes in chosen], answers):
        pictures = [_square([token - offset for token in codes]) for codes in grids]
        rows.append([np.asarray(image) for image in decoder.decode_many(pictures, decoder.variants[0])])
    return {"drawn": sheet(rows)}


def _drawing(record: Record) -> tuple[np.ndarray, np.ndarray] | None:
    """The prompt and the codes of a record whose only learned part is one square of codes."""
    learned = np.flatnonzero(record.kinds != 0)
    side = round(len(learned) ** 0.5)
    whole = len(learned) and (record.kinds[learned] == CODE).all() and learned[-1] - learned[0] + 1 == len(learned)
    if not whole or side * side != len(learned):
        return None
    return record.ids[: learned[0]], record.ids[learned]


def _square(codes: list[int]) -> ImageCodes:
    side = round(len(codes) ** 0.5)
    return ImageCodes(tuple(codes), side, side)

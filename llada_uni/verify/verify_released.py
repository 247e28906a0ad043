"""Recorded checks of generation as the released model's own code does it (`released.json`).

One entry of the file is one row: its settings are turned into the engine's, and tokens, number of denoising steps and, with
SPRINT, the kept positions of the prefix must be the recorded ones. Any directory with a backbone and such a file works.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE
from llada_uni.generation.engine import Engine
from llada_uni.generation.settings import Generation, Guidance, Settings, Sprint
from llada_uni.verify.compare import Result, Row, has_part, mismatches
from llada_uni.verify.verify_backbone import BackboneChecks

FILE = "released.json"
REMASKING = {  # released name of a measure of certainty -> ours
    "low_confidence": "probability",
    "top_k_margin": "margin",
    "neg_entropy": "neg_entropy",
    "random": "random",
}
SPRINT = {  # released name of an argument -> ours
    "keep_ratio": "keep_ratio",
    "cache_warmup_steps": "warmup",
    "confidence_alpha": "alpha",
    "image_keep_ratio": "image_keep_ratio",
    "text_keep_ratio": "text_keep_ratio",
}
COMMON = {"name", "kind", "mask_id", "prompt", "gen_length", "block_length", "steps", "threshold", "remasking", "sprint"}
IMAGE = {"uncond", "no_text", "no_image", "cfg_scale", "cfg_text_scale", "cfg_image_scale", "cfg_rescale", "codes"}
TEXT = {"eos_id", "eos_early_stop"}
RECORDED = {"output", "evaluations", "kept_first_block"}


class ReleasedChecks:
    """Rows of `released.json`, which lies beside the backbone's weights."""

    def __init__(self, backbone: BackboneChecks) -> None:
        self.checks = backbone
        self.file: Path = backbone.folder / FILE

    def rows(self) -> Iterator[Row]:
        if not self.file.is_file() or not has_part(self.checks.folder, BACKBONE):
            return
        for i, entry in enumerate(json.loads(self.file.read_text(encoding="utf-8"))):
            yield f"backbone.released.{i}.{entry.get('kind', '')}", 0.0, partial(self._generation, entry)

    def _generation(self, entry: dict[str, Any]) -> Result:
        model = self.checks.backbone
        settings, branches = released_settings(entry, model.config)
        generator = torch.Generator().manual_seed(0) if settings.samples else None
        error, detail = compare(Engine(model).generate(entry["prompt"], settings, branches, generator), entry)
        return error, f"{entry.get('name', '')}; {detail}".removeprefix("; ")


def released_settings(entry: Mapping[str, Any], config: BackboneConfig) -> tuple[Settings, dict[str, list[int]]]:
    """The engine's settings for an entry, and the prompts of its branches of guidance.

    Images: guidance over the whole vocabulary, then the choice among ids from `image_token_offset` on, the last block whole.
    UserError for a field or a value that is unknown: it could change what is computed.
    """
    kinds = {"image": IMAGE, "text": TEXT}
    kind = entry.get("kind")
    if kind not in kinds:
        raise UserError(f"kind is {kind!r}; allowed: {', '.join(kinds)}")
    unknown = [*(set(entry) - COMMON - kinds[kind] - RECORDED), *(set(entry.get("sprint") or {}) - set(SPRINT))]
    if unknown:
        raise UserError(f"unknown field {sorted(unknown)[0]!r} of an entry of kind {kind}")
    remasking = entry.get("remasking")
    if remasking not in (None, *REMASKING):
        raise UserError(f"remasking is {remasking!r}; allowed: {', '.join(REMASKING)}")
    arguments = entry.get("sprint")
    sprint = None if arguments is None else Sprint(**{SPRINT[name]: value for name, value in arguments.items()})
    guidance, branches = None, {}
    rescale = entry.get("cfg_rescale", 0.0)
    if "no_text" in entry:
        guidance = Guidance.editing(entry["cfg_text_scale"], entry["cfg_image_scale"], rescale)
        branches = {name: entry[name] for name in ("no_text", "no_image")}
    elif "uncond" in entry:
        guidance = Guidance.simple(entry["cfg_scale"], rescale)
        branches = {"uncond": entry["uncond"]}
    settings = Settings(
        mask_id=entry["mask_id"],
        block_length=entry["block_length"],
        steps=entry["steps"],
        threshold=entry["threshold"],
        gen_length=entry["gen_length"],
        stop_ids=(entry["eos_id"],) if kind == "text" else (),
        early_stop=entry.get("eos_early_stop", True),
        stop_on_accept=True,
        allowed=range(config.image_token_offset, config.vocab_size) if kind == "image" else None,
        guidance=guidance,
        overhang=True,
        confidence=None if remasking is None else REMASKING[remasking],
        sprint=sprint,
    )
    return settings, branches


def compare(found: Generation, entry: Mapping[str, Any]) -> Result:
    """How far a generation is from what an entry recorded: tokens, then kept positions, then denoising steps."""
    error, detail = mismatches(found.tokens[: entry.get("codes")], entry["output"], "tokens")
    if error == 0 and "kept_first_block" in entry:
        kept = None if found.kept is None else [layer.tolist() for layer in found.kept]
        error, other = mismatches(kept or [], entry["kept_first_block"], "kept positions of layer")
        detail = other if error else detail
    steps = entry.get("evaluations", found.evaluations)
    if error == 0 and found.evaluations != steps:
        return float(abs(found.evaluations - steps)), f"{found.evaluations} steps, recorded are {steps}"
    return error, detail

"""Settings of every task, where the caller gives none: from the model directory's `generation_config.json`.

What flows through: an optional JSON file -> `Defaults`. A key that is absent has the typical value of the
released model (arXiv:2604.20796 and the released configuration). Other keys at the top level are other
programs' and are ignored.

    {"block_length": 32,
     "generate":   {"height": 1024, "width": 1024, "cfg_scale": 2.0, "codes": {...}, "text": {...}},
     "edit":       {"text_scale": 4.0, "image_scale": 0.0, "rescale": 0.0, "codes": {...}},
     "understand": {"text": {...}},
     "interleave": {"height": 1024, "width": 1024, "max_frames": 10, "first_scale": 2.0, "text_scale": 7.5,
                    "image_scale": 1.5, "rescale": 0.7, "codes": {...}, "text": {...}},
     "decode":     {"decoder": "turbo", "turbo_steps": 8, "base_steps": 50}}

with "codes": {"steps": 8, "threshold": 0.95, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "rule": "threshold",
"confidence": null, "sprint": null} and "text": the same, but "steps": 32 and "max_tokens": 2048.
Sizes are pixels, `max_tokens` tokens; temperature 0 is greedy, top_k 0 and top_p 1 are off; a text scale of 1
with an image scale of 0 means no guidance. Rules and confidences: see `generation.unmasking`; "sprint" prunes the
prefix: {"r": 0.5, "r_text": null, "r_img": null, "alpha": 0.5}, or as published {"keep_ratio": 0.7, "warmup": 2,
"image_keep_ratio": null, "text_keep_ratio": null, "alpha": 0.5}, see `generation.sprint`. "confidence": null is the
rule's own measure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError
from llada_uni.files.weights import read_json
from llada_uni.generation.sampling import CONFIDENCES
from llada_uni.generation.sprint import Sprint
from llada_uni.generation.unmasking import RULES

FILE = "generation_config.json"
LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class Codes:
    """How a grid of codes is unmasked (arXiv:2604.20796, block diffusion)."""

    steps: int = 8
    threshold: float = 0.95
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    rule: str = "threshold"
    confidence: str | None = None
    sprint: Sprint | None = None


@dataclass(frozen=True)
class Words(Codes):
    """How words are unmasked, and how many there may be."""

    steps: int = 32
    max_tokens: int = 2048


@dataclass(frozen=True)
class Generate:
    height: int = 1024
    width: int = 1024
    cfg_scale: float = 2.0
    codes: Codes = field(default_factory=Codes)
    text: Words = field(default_factory=lambda: Words(max_tokens=4096))  # thoughts


@dataclass(frozen=True)
class Edit:
    text_scale: float = 4.0
    image_scale: float = 0.0
    rescale: float = 0.0
    codes: Codes = field(default_factory=Codes)


@dataclass(frozen=True)
class Understand:
    text: Words = field(default_factory=Words)


@dataclass(frozen=True)
class Interleave:
    """`first_scale`: guidance of the first frame, which has no history (the report gives none; ours: text to
    image's).
    """

    height: int = 1024
    width: int = 1024
    max_frames: int = 10
    first_scale: float = 2.0
    text_scale: float = 7.5
    image_scale: float = 1.5
    rescale: float = 0.7
    codes: Codes = field(default_factory=Codes)
    text: Words = field(default_factory=Words)


@dataclass(frozen=True)
class Decode:
    decoder: str = "turbo"
    turbo_steps: int = 8
    base_steps: int = 50


@dataclass(frozen=True)
class Defaults:
    """Every setting of a model directory."""

    block_length: int = 32
    generate: Generate = field(default_factory=Generate)
    edit: Edit = field(default_factory=Edit)
    understand: Understand = field(default_factory=Understand)
    interleave: Interleave = field(default_factory=Interleave)
    decode: Decode = field(default_factory=Decode)

    @classmethod
    def from_folder(cls, folder: Path) -> Defaults:
        """Reads the file if it is there; UserError naming the key that is unknown or has an impossible
        value.
        """
        path = folder / FILE
        return cls.from_json(read_json(path)) if path.is_file() else cls()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Defaults:
        known = {field.name for field in dataclasses.fields(cls)}
        return _read(cls(), {key: value for key, value in data.items() if key in known}, FILE)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def adjusted(settings: Any, **given: Any) -> Any:
    """`settings` with the values that are not None put in their place, checked. UserError for an impossible
    value.
    """
    given = {key: value for key, value in given.items() if value is not None}
    return _read(settings, given, "")


def _read(settings: Any, data: Mapping[str, Any], where: str) -> Any:
    changes = {}
    for key, value in data.items():
        if not hasattr(settings, key):
            raise UserError(f"{where}: unknown setting {key!r}; known: {', '.join(vars(settings))}")
        old = getattr(settings, key)
        if key == "sprint":
            changes[key] = _sprint(value, f"{where} {key}".strip())
        elif dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: {key!r} must hold settings, not {value!r}")
            changes[key] = _read(old, value, f"{where} {key}".strip())
        else:
            changes[key] = check_setting(key, value, where)
    return dataclasses.replace(settings, **changes)


def _sprint(value: Any, where: str) -> Sprint | None:
    """How the prefix is pruned, from its settings; None where it is not."""
    if value is None or isinstance(value, Sprint):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must hold settings or be null, not {value!r}")
    names = [field.name for field in dataclasses.fields(Sprint)]
    for name, number in value.items():
        if name not in names:
            raise UserError(f"{where}: unknown setting {name!r}; known: {', '.join(names)}")
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            allowed = "1 on" if name == "warmup" else "0 to 1"
            raise UserError(f"{where}: {name} must be a number from {allowed}, not {number!r}")
    return Sprint(**value)


_WORDS = {"decoder": ("turbo", "base"), "rule": RULES, "confidence": CONFIDENCES}  # name -> what it may be
_WHOLE = {  # name -> smallest and largest value; the largest only keep a slip from taking all memory
    "steps": (1, 4096), "turbo_steps": (1, 1000), "base_steps": (2, 1000), "max_tokens": (1, 2**20),
    "max_frames": (1, 1000), "height": (1, 2**14), "width": (1, 2**14), "block_length": (1, 4096), "top_k": (0, 2**24),
}  # fmt: skip
_REAL = {  # name -> smallest and largest value
    "threshold": (0.0, 1.0), "temperature": (0.0, 100.0), "top_p": (0.0, 1.0), "rescale": (0.0, 1.0),
    "cfg_scale": (0.0, LARGEST_SCALE), "first_scale": (0.0, LARGEST_SCALE),
    "text_scale": (0.0, LARGEST_SCALE), "image_scale": (0.0, LARGEST_SCALE),
}  # fmt: skip


def check_setting(name: str, value: Any, where: str = "") -> Any:
    """The value if it is possible for the setting `name`, else UserError with what is allowed."""
    prefix = f"{where}: " if where else ""
    if name in _WORDS:
        if name == "confidence" and value is None:  # the rule's own
            return None
        if value not in _WORDS[name]:
            raise UserError(f"{prefix}unknown {name} {value!r}; allowed: {', '.join(_WORDS[name])}")
        return value
    if name in _WHOLE:
        low, high = _WHOLE[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(f"{prefix}{name} must be a whole number from {low} to {high}, not {value!r}")
        return value
    low, high = _REAL[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or (name == "top_p" and value == 0):
        raise UserError(f"{prefix}{name} must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)

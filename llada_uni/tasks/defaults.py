"""Settings of every task, where the caller gives none: from the model directory's `generation_config.json`.

An optional JSON file -> `Defaults`. A directory whose file has none of these keys, or that has no such file, is taken for
the published model: `Defaults.published`. Other keys at the top level are other programs' and are ignored.

    {"profile": "plain", "block_length": 32, "sizes": ["192x192"], "other_size": "scale", "familiar": 0.9,
     "generate":   {"height": 1024, "width": 1024, "cfg_scale": 2.0, "rescale": 0.0, "codes": {...}, "text": {...}},
     "edit":       {"text_scale": 4.0, "image_scale": 0.0, "rescale": 0.0, "codes": {...}},
     "understand": {"text": {...}},
     "interleave": {"height": 1024, "width": 1024, "max_frames": 10, "first_scale": 2.0, "text_scale": 7.5,
                    "image_scale": 1.5, "rescale": 0.7, "codes": {...}, "text": {...}},
     "decode":     {"decoder": "turbo", "turbo_steps": 8, "base_steps": 50}}

with "codes": {"steps": 8, "threshold": 0.95, ...}, every setting of `params.Sampling`, and "text": the same with "steps": 32
and "max_tokens": 2048. Types, bounds and meanings are those of `generation/params.py`, where each is declared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator

from llada_uni.checked import Checked
from llada_uni.errors import UserError
from llada_uni.files.configs import read_json
from llada_uni.files.model_dir import SETTINGS
from llada_uni.generation import params
from llada_uni.requests import Request

FILE = SETTINGS.marker
# Where the defaults of the published code differ from those of `params` (docs/released.md has the table).
PUBLISHED: Mapping[str, Any] = {
    "profile": "published",
    "generate": {"cfg_scale": 4.0, "rescale": 0.7, "codes": {"steps": 16}},
    "edit": {"rescale": 0.7},
    "decode": {"decoder": "base"},
}
ABOUT = {"sizes", "other_size", "familiar"}  # keys that say nothing of the code a model was made for
C = TypeVar("C", bound=Checked)


def _sizes(value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) and _SIZE.fullmatch(one) for one in found):
        raise UserError(f'sizes must be a list of "WIDTHxHEIGHT" in pixels, such as "192x192", not {value!r}')
    return tuple(found)


_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
Sizes = Annotated[tuple[str, ...], BeforeValidator(_sizes)]


class Defaults(params.Blocks, params.Trained):
    """Every setting of a model directory. profile: which code's conventions its prompts follow (`params.PROFILES`). sizes:
    those of images, "WIDTHxHEIGHT" in pixels, that the model was trained to draw; none: every size.
    familiar: how near its codes are to the patches of images of the kinds it knows (tasks/familiar.py).
    """

    profile: params.Profile = "plain"
    sizes: Sizes = ()
    familiar: params.Share | None = None
    generate: params.GenerateSettings = params.GenerateSettings()
    edit: params.EditSettings = params.EditSettings()
    understand: params.UnderstandSettings = params.UnderstandSettings()
    interleave: params.InterleaveSettings = params.InterleaveSettings()
    decode: params.DecodeSettings = params.DecodeSettings()

    @classmethod
    def from_folder(cls, folder: Path) -> Defaults:
        """Reads the file if it is there; UserError naming the key that is unknown or has an impossible value."""
        path = folder / FILE
        return cls.from_json(read_json(path) if path.is_file() else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Defaults:
        """The settings of a file's content. Absent keys have the value of `params`, or that of the profile it names."""
        ours = {key: value for key, value in data.items() if key in cls.model_fields}
        if ours.keys() <= ABOUT or ours.get("profile") == "published":
            return cls.published().overlaid(ours, FILE)
        return cls().overlaid(ours, FILE)

    @classmethod
    def published(cls) -> Defaults:
        """The defaults of the published model's own code."""
        return cls().overlaid(PUBLISHED)

    @property
    def as_published(self) -> bool:
        return self.profile == "published"

    @property
    def trained_sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of `sizes`."""
        return [(int(height), int(width)) for width, height in (size.split("x") for size in self.sizes)]

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def of(self, kind: type[Request]) -> dict[str, Any]:
        """The default of every setting of a request that the directory decides, by its name in the request."""
        section = getattr(self, kind.section)
        found = {}
        for name, path in kind.paths.items():
            found[name] = _at(section if path[0] in type(section).model_fields else self, path)
        if "decoder" in kind.model_fields:
            found |= self.decode.own()
        return {name: value for name, value in found.items() if value is not None}


def adjusted(settings: C, **given: Any) -> C:
    """`settings` with the values that are not None put in their place, checked. UserError for an impossible value."""
    return settings.overlaid({key: value for key, value in given.items() if value is not None})


def _at(settings: Checked, path: tuple[str, ...]) -> Any:
    """The setting at a path; None where there is none (an edit's size is that of its image)."""
    value: Any = settings
    for name in path:
        value = getattr(value, name, None)
    return value

"""Bodies of /v1/models, /health, /ready and /v1/llada/defaults."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from llada_uni.serving.http.protocol.settings import Setting


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llada-uni"
    sizes: list[str] | None = Field(
        default=None, description="Sizes of images it was trained for, WIDTHxHEIGHT; [] for all, null while it loads."
    )


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(BaseModel):
    """The model is loaded and requests are taken."""

    status: Literal["ready"] = "ready"
    model: str


class Defaults(BaseModel):
    """What a client needs to offer settings: the model's own, the sizes it can draw, what the server allows.

    size_step: sides of pictures are multiples of it, in pixels. settings: as in the directory's generation_config.json. tasks:
    the settings of each kind of request (llada_uni/requests.py), with words, bounds and defaults, to build a form of.
    """

    model: str
    version: str
    size_step: int
    settings: dict[str, Any]
    decoders: list[str]
    rules: list[str]
    confidences: list[str]
    tasks: dict[str, list[Setting]]
    limits: dict[str, int | float | None]
    remote_images: bool

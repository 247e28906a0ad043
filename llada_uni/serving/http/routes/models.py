"""GET /v1/models, and what the model can be told: /v1/llada/defaults, from its directory and the limits of the service."""

from __future__ import annotations

import dataclasses

from fastapi import APIRouter

from llada_uni.generation.params import CONFIDENCES
from llada_uni.generation.unmasking import RULES
from llada_uni.requests import Draw, Edit, Inpaint, Request, Story, Understand
from llada_uni.serving.http.protocol.models import Defaults, Model, ModelList
from llada_uni.serving.http.protocol.settings import Setting, table
from llada_uni.serving.http.routes.context import VERSION, Context, Here

OFFERED: tuple[type[Request], ...] = (Draw, Edit, Inpaint, Understand, Story)
router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models")
async def list_models(here: Here) -> ModelList:
    """The models that can be asked for; the first is meant where a request names none."""
    return ModelList(data=[_model(here, name) for name in here.names])


@router.get("/models/{name:path}")
async def get_model(name: str, here: Here) -> Model:
    here.check_model(name)
    return _model(here, name)


def _model(here: Context, name: str) -> Model:
    """sizes: of a further model, only once it is asked for."""
    loaded = name == here.options.model_name and here.service.ready
    return Model(id=name, created=here.started, sizes=list(here.service.model.parts.defaults.sizes) if loaded else None)


@router.get("/llada/defaults")
async def get_defaults(here: Here, model: str | None = None) -> Defaults:
    """The model's own settings, the sizes it draws, and the server's limits. 503 while the model loads."""
    here = await here.of_model(model)
    here.check_ready()
    parts = here.service.model.parts
    return Defaults(
        model=here.options.model_name,
        version=VERSION,
        size_step=parts.pixels_per_code,
        settings=parts.defaults.to_json(),
        decoders=list(parts.decoder.variants),
        rules=list(RULES),
        confidences=list(CONFIDENCES),
        tasks=_tables(here),
        limits=dataclasses.asdict(here.limits),
        remote_images=here.options.allow_remote_images,
    )


def _tables(here: Context) -> dict[str, list[Setting]]:
    """The settings of each kind of request: the directory's own values, and no more than this server allows."""
    parts, limits = here.service.model.parts, dataclasses.asdict(here.limits)
    decoders, decode = parts.decoder.variants, parts.defaults.decode
    tables = {}
    for kind in OFFERED:
        defaults = parts.defaults.of(kind)
        if decoders and decode.decoder not in decoders:
            defaults |= decode.own(decoders[0])
        tables[kind.__name__.lower()] = table(kind, defaults, limits, {"decoder": decoders})
    return tables

"""POST /v1/images/generations and /v1/images/edits.

`GenerationRequest` -> `Draw`; `EditFields` with pictures, from JSON or a form -> `Edit`, or with a
mask `Inpaint` -> `drawing.draw`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from llada_uni.requests import Draw, Edit, Inpaint
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.protocol.images import EditFields, EditRequest, GenerationRequest, ImageReference, ImagesResponse
from llada_uni.serving.http.routes.bodies import FORM, JSON, JsonRoute, check_kind, read_form, read_json
from llada_uni.serving.http.routes.context import Context, Here
from llada_uni.serving.http.routes.drawing import draw
from llada_uni.serving.http.routes.pictures import open_pictures, white_where_transparent
from llada_uni.serving.http.sse import STREAMED

drawing = APIRouter(route_class=JsonRoute, tags=["images"])
editing = APIRouter(tags=["images"])

Sources = list[tuple[str, str | bytes]]  # (field, URL or the content of a file)


@drawing.post("/v1/images/generations", response_model=ImagesResponse, responses=STREAMED)
async def create_image(body: GenerationRequest, request: Request, here: Here) -> Any:
    """Pictures of what the prompt says."""
    here = await here.accept(request, body)
    body.check()
    return await draw(here, request, body, Draw(prompt=body.prompt, **body.given(Draw)), "image_generation")


def _schema(model: type[EditFields]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    COMPONENTS.update(schema.pop("$defs", {}))
    return schema


def _form_schema() -> dict[str, Any]:
    schema = _schema(EditFields)
    file = {"type": "string", "format": "binary"}
    pictures = {"oneOf": [file, {"type": "array", "items": file}]}
    schema["properties"] |= {"image": pictures, "image[]": pictures, "mask": file}
    schema["anyOf"] = [{"required": ["image"]}, {"required": ["image[]"]}]
    return schema


COMPONENTS: dict[str, Any] = {}  # schemas that EDIT_BODY refers to, for /openapi.json
# Two kinds of body on one route are more than FastAPI can read, or describe, by itself.
EDIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": _schema(EditRequest)}, FORM: {"schema": _form_schema()}},
    }
}


@editing.post("/v1/images/edits", response_model=ImagesResponse, responses=STREAMED, openapi_extra=EDIT_BODY)
async def create_image_edit(request: Request, here: Here) -> Any:
    """Pictures changed as the prompt says; with a mask, the masked part of one picture drawn again."""
    if check_kind(request, JSON, FORM) == JSON:
        body, images, masks = _from_json(await read_json(request, EditRequest))
    else:
        body, images, masks = await _from_form(request, here)
    here = await here.accept(request, body)
    body.check()
    if not images:
        raise ApiError(400, "image is missing: the picture to change", "image")
    if len(masks) > 1:
        raise ApiError(400, "mask is given more than once", "mask")
    body.check_mask(bool(masks), len(images))
    return await draw(here, request, body, await _request(here, body, images, masks), "image_edit")


def _from_json(body: EditRequest) -> tuple[EditFields, Sources, Sources]:
    images: Sources = [] if body.image is None else [("image", _url(body.image))]
    images += [(f"images[{number}]", _url(image)) for number, image in enumerate(body.images or ())]
    return body, images, [] if body.mask is None else [("mask", _url(body.mask))]


def _url(reference: str | ImageReference) -> str:
    return reference if isinstance(reference, str) else reference.image_url


async def _from_form(request: Request, here: Context) -> tuple[EditFields, Sources, Sources]:
    most = here.limits.max_pictures + 1
    body, files = await read_form(request, EditFields, ("image", "image[]", "mask"), most, here.limits.max_body)
    images = [("image", upload) for upload in (*files["image"], *files["image[]"])]
    return body, images, [("mask", upload) for upload in files["mask"]]


async def _request(here: Context, body: EditFields, images: Sources, masks: Sources) -> Edit | Inpaint:
    pictures = await open_pictures(here, images)
    if masks:
        mask = (await open_pictures(here, masks))[0]
        if body.mask_mode != "white":
            mask = white_where_transparent(mask)
        return Inpaint(image=pictures[0], mask=mask, prompt=body.prompt, **body.given(Inpaint))
    return Edit(images=pictures, instruction=body.prompt, **body.given(Edit))

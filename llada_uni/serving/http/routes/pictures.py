"""Pictures on their way in and out of HTTP: references and files -> PIL, PIL -> base64. All work in threads.

Data URIs and files of a request -> `serving.pictures`; pictures of the model -> bytes of a file,
written with fixed settings, so that the same seed gives the same bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Literal

from PIL import Image
from starlette.concurrency import run_in_threadpool

from llada_uni.errors import UserError
from llada_uni.serving.http.pictures import picture_from_url, read_picture
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.routes.context import Context

Format = Literal["png", "jpeg", "webp"]
QUALITY = 95  # of jpeg and webp where the request says nothing


async def open_pictures(context: Context, sources: Sequence[tuple[str, str | bytes]]) -> list[Image.Image]:
    """Pictures of (field, URL or content of a file). ApiError for more than the server allows, or naming the field at fault."""
    most = context.limits.max_pictures
    if len(sources) > most:
        raise ApiError(400, f"the request has {len(sources)} pictures; this server allows {most}", sources[-1][0])
    return [await _open(context, field, source) for field, source in sources]


async def _open(context: Context, field: str, source: str | bytes) -> Image.Image:
    try:
        if isinstance(source, str):
            return await picture_from_url(source, context.limits, context.options.allow_remote_images, context.pictures)
        return await run_in_threadpool(read_picture, source, context.limits, context.pictures)
    except UserError as error:
        raise ApiError(400, f"{field}: {error}", field) from None


async def as_base64(image: Image.Image, kind: Format = "png", quality: int | None = None) -> str:
    """A picture file in base64. quality: 0 to 100, of jpeg and webp."""
    return await run_in_threadpool(_encode, image, kind, QUALITY if quality is None else quality)


def _encode(image: Image.Image, kind: Format, quality: int) -> str:
    file = io.BytesIO()
    image.save(file, kind.upper(), **({} if kind == "png" else {"quality": quality}))
    return base64.b64encode(file.getvalue()).decode("ascii")


def white_where_transparent(mask: Image.Image) -> Image.Image:
    """OpenAI's kind of mask as the model's: white (to be drawn again) where the mask is fully transparent, else black.

    ApiError for a mask without transparent pixels, which would change nothing.
    """
    alpha = mask.getchannel("A") if "A" in mask.getbands() else Image.new("L", mask.size, 255)
    if 0 not in alpha.tobytes():
        raise ApiError(
            400, 'mask has no transparent pixels; they mark what is drawn again (or set mask_mode to "white")', "mask"
        )
    return alpha.point(lambda level: 255 * (level == 0))

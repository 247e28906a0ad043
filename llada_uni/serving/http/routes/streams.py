"""GET and DELETE /v1/llada/streams/{name}: a stream that its client named, read again after a lost connection, or ended.

Any request with `stream` and the header `x-llada-stream` has one (`kept.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from llada_uni.serving.http import sse
from llada_uni.serving.http.kept import NAME
from llada_uni.serving.http.routes.context import Here
from llada_uni.serving.http.routes.running import begun

router = APIRouter(prefix="/v1/llada/streams", tags=["streams"])
Name = Annotated[str, Path(description="As given in the header x-llada-stream.", json_schema_extra={"pattern": f"^{NAME}$"})]


@router.get("/{name}", response_class=Response, responses=sse.STREAMED)
async def read_stream(name: Name, request: Request, here: Here) -> Response:
    """Its messages from the beginning, to the end; progress only as it stands. What it failed with, where it did not begin."""
    await request.body()  # of a GET there is none; from here on `receive` tells that the client leaves
    stream = here.kept.find(request.state.owner, name)
    return await begun(request, stream.read(), stream.failed)


class Dropped(BaseModel):
    """As OpenAI tells of what was deleted."""

    id: str
    object: Literal["llada.stream.deleted"] = "llada.stream.deleted"
    deleted: Literal[True] = True


@router.delete("/{name}")
async def drop_stream(name: Name, request: Request, here: Here) -> Dropped:
    """Ends its work where it goes on, and forgets it."""
    here.kept.find(request.state.owner, name).drop()
    return Dropped(id=name)

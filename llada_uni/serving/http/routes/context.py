"""What every route knows: the service behind it, its options, and how an exception is told to a client.

`app.state` -> `Context` -> routes; exceptions -> status and `ErrorBody`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from llada_uni import __version__
from llada_uni.errors import UserError
from llada_uni.serving.errors import Draining, ServingError
from llada_uni.serving.http.kept import KeptStreams
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.http.pictures import PictureMemory
from llada_uni.serving.http.protocol.errors import ApiError, ErrorBody, error_body
from llada_uni.serving.http.protocol.settings import SettingsBody, field_at_fault
from llada_uni.serving.http.quota import Quotas
from llada_uni.serving.scheduler.limits import Limits

if TYPE_CHECKING:
    from llada_uni.serving.scheduler.models import Models
    from llada_uni.serving.scheduler.service import Service

VERSION = __version__
ASK_AGAIN = 2  # seconds after which to look whether the model is there
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """pictures: counts those of requests under way. models: further ones. quotas: what keys have used. kept:
    streams that clients can come back to. started: seconds since 1970, the "created" of the model.
    """

    service: Service
    options: ServerOptions
    pictures: PictureMemory
    models: Models | None = None
    quotas: Quotas = field(default_factory=lambda: Quotas({}))
    kept: KeptStreams = field(default_factory=KeptStreams)
    started: int = field(default_factory=lambda: int(time.time()))

    @property
    def limits(self) -> Limits:
        return self.service.limits

    @property
    def fingerprint(self) -> str:
        return f"{self.options.model_name}-{VERSION}"

    @property
    def names(self) -> tuple[str, ...]:
        """What models can be asked for; the first is the server's own."""
        return (self.options.model_name, *(() if self.models is None else self.models.offers))

    def check_model(self, name: str | None) -> None:
        """ApiError 404 unless `name` is a model that is served, or None."""
        if name is not None and name not in self.names:
            there = " or ".join(repr(one) for one in self.names)
            raise ApiError(404, f"there is no model {name[:60]!r} here; this server has {there}", "model", "model_not_found")

    async def of_model(self, name: str | None) -> Context:
        """The same for another model of this server, which is read where it is not in memory. ApiError 404, QueueFull,
        Draining.
        """
        self.check_model(name)
        if name is None or name == self.options.model_name:
            return self
        assert self.models is not None, "it has the name"
        service = await asyncio.to_thread(self.models.get, name)
        return replace(self, service=service, options=replace(self.options, model_name=name))

    async def accept(self, request: Request, body: SettingsBody) -> Context:
        """Notes the body of a request, for the words of errors; what is known of the model that it names, as `of_model`."""
        request.state.body = body
        return await self.of_model(getattr(body, "model", None))

    def check_ready(self) -> None:
        """Draining (503) with the reason unless the model is loaded and requests are taken."""
        if self.service.failure is not None:
            raise Draining(self.service.failure)
        if not self.service.ready:
            raise Draining("the model is loading, or the server is stopping", ASK_AGAIN)

    def explain(self, error: Exception, body: SettingsBody | None = None) -> tuple[int, ErrorBody]:
        """(HTTP status, body) of an exception. One that nobody expected is logged, and told without details. body: what was
        asked, to name the field at fault.
        """
        if isinstance(error, ApiError):
            return error.status, error_body(error.status, str(error), error.param, error.code)
        if isinstance(error, UserError):
            return 400, error_body(400, str(error), None if body is None else field_at_fault(str(error), body))
        if isinstance(error, ServingError):
            return error.status, error_body(error.status, str(error))
        log.error("a request failed", exc_info=error)
        return 500, error_body(500, "the server failed on this request")


def _context(request: Request) -> Context:
    return request.app.state.context


Here = Annotated[Context, Depends(_context)]

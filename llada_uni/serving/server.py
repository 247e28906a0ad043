"""The server as a process: a socket of its own, uvicorn around the application, and an end that loses no request.

`create_app` -> uvicorn -> HTTP. On SIGTERM or SIGINT the service is drained first, while the socket
still listens: what runs is finished, who comes is told 503; then the server stops with exit code 0.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from llada_uni.errors import UserError
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.http.patience import PatientProtocol

if TYPE_CHECKING:
    from llada_uni.serving.scheduler.models import Models
    from llada_uni.serving.scheduler.service import Service

CLOSE_SECONDS = 5  # for connections that hold a finished answer, after the drain
IDLE_SECONDS = 75  # longer than clients and proxies keep an idle connection, so that none sends into one being closed


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. UserError for an address that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use; choose another, or 0 for any that is free") from None
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}, port {port} ({reason})") from None


class DrainingServer(uvicorn.Server):
    """uvicorn with a service behind it. on_loaded: called once, when the model is in memory or could not be loaded."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        grace: float,
        on_loaded: Callable[[], None],
        models: Models | None = None,
    ) -> None:
        super().__init__(config)
        self.service, self.grace, self.models = service, grace, models
        self._on_loaded: Callable[[], None] | None = on_loaded

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, a second one stops at once. (uvicorn's own would raise the signal again at the end,
        and so spoil the exit code of a stop that went well.)
        """
        self.force_exit = self.should_exit
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if self._on_loaded is not None and (self.service.ready or self.service.failure is not None):
            self._on_loaded()
            self._on_loaded = None
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        others = [] if self.models is None else [self.models.drain(self.grace)]
        drained = asyncio.ensure_future(asyncio.gather(self.service.drain(self.grace), *others))
        while not drained.done() and not self.force_exit:
            await asyncio.wait({drained}, timeout=0.1)
        drained.cancel()
        self.service.close()
        await super().shutdown(sockets)


def run(
    service: Service,
    options: ServerOptions,
    listener: socket.socket,
    grace: float = 30.0,
    on_loaded: Callable[[], None] = lambda: None,
    models: Models | None = None,
) -> None:
    """Start the service, answer requests until a signal comes, drain, close. grace: seconds for what runs by then."""
    config = uvicorn.Config(
        create_app(service, options, models),
        log_config=None,
        log_level="warning",
        access_log=False,  # trace.py has one line for each request
        server_header=False,
        lifespan="off",
        ws="none",
        http=PatientProtocol,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        timeout_keep_alive=IDLE_SECONDS,
    )
    service.start()
    try:
        DrainingServer(config, service, grace, on_loaded, models).run(sockets=[listener])
    finally:
        service.close()
        if models is not None:
            models.close()

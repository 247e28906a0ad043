"""One HTTP request as jobs of the service: n of them at a time, ended together, and with their client.

Each becomes a job; what comes back are outcomes (an answer at once), or events of all jobs as they come (a stream).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from fastapi import Request

from llada_uni.requests import Request as Asked
from llada_uni.results import EndEvent, StreamEvent
from llada_uni.serving.http import sse
from llada_uni.serving.http.kept import HEADER
from llada_uni.serving.http.routes.context import Context
from llada_uni.serving.http.trace import span
from llada_uni.serving.scheduler.job import Job, Outcome

T = TypeVar("T")


class ClientGone(Exception):
    """The client hung up before it had its answer."""


@contextmanager
def submitted(context: Context, request: Request, each: Sequence[Asked], partial_images: int = 0) -> Iterator[list[Job]]:
    """Jobs of requests. However the block ends, those that still run are cancelled."""
    jobs: list[Job] = []
    try:
        for asked in each:
            jobs.append(context.service.submit(asked, request.state.owner, partial_images))
        yield jobs
    finally:
        for job in jobs:
            job.cancel()


async def outcomes(context: Context, request: Request, each: Sequence[Asked]) -> list[Outcome]:
    """What became of requests, in their order. The first failure ends all and is raised; ClientGone where that comes first."""
    with submitted(context, request, each) as jobs, span("llada_uni.jobs", task=type(each[0]).__name__, jobs=len(jobs)):
        done = await unless_gone(request, asyncio.gather(*(job.result() for job in jobs)))
    for outcome in done:
        context.quotas.charge(request.state.owner, outcome.end.usage)
    return done


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`; ClientGone, and `work` is cancelled, if the client leaves first. The body has been read."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))  # what `work` holds is free from here on


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def arriving(
    context: Context, request: Request, each: Sequence[Asked], partial_images: int = 0
) -> AsyncGenerator[tuple[int, StreamEvent] | None, None]:
    """(which of `each`, event) as they come, until all have finished; None where nothing came for a while. Raises the
    first failure. However it ends, and when it is closed, all jobs are over.
    """
    # Short: while the reader is slow, progress waits in the jobs, where newer progress takes its place.
    mail: asyncio.Queue[tuple[int, StreamEvent | Exception]] = asyncio.Queue(maxsize=1)

    async def pump(number: int, job: Job) -> None:
        try:
            async for event in job.events():
                await mail.put((number, event))
        except Exception as error:
            await mail.put((number, error))

    with (
        submitted(context, request, each, partial_images) as jobs,
        span("llada_uni.jobs", task=type(each[0]).__name__, jobs=len(jobs), stream=True),
    ):
        pumps = [asyncio.create_task(pump(number, job)) for number, job in enumerate(jobs)]
        try:
            running = len(jobs)
            while running:
                try:
                    number, event = await asyncio.wait_for(mail.get(), sse.PING_SECONDS)
                except asyncio.TimeoutError:
                    yield None
                    continue
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, EndEvent):
                    running -= 1
                    context.quotas.charge(request.state.owner, event.usage)
                yield number, event
        finally:
            for one in pumps:
                one.cancel()


async def stream(
    context: Context, request: Request, messages: sse.Messages, failed: Callable[[Exception], bytes] | None = None
) -> sse.EventStream:
    """The answer that sends `messages`, kept (`kept.py`) where the client gives it a name. What fails before the first of
    them is raised here; failed: what is sent of a later failure, by default an event `error` with OpenAI's error object.
    """

    def error_event(error: Exception) -> bytes:
        return sse.message(context.explain(error, getattr(request.state, "body", None))[1], "error")

    failed = failed or error_event
    name = request.headers.get(HEADER)
    if name is not None:
        messages = context.kept.keep(request.state.owner, name, messages, failed)
    return await begun(request, messages, failed)


async def begun(request: Request, messages: sse.Messages, failed: Callable[[Exception], bytes]) -> sse.EventStream:
    """The answer that sends `messages`, once there is the first. What fails before is raised here."""
    try:
        first = await unless_gone(request, anext(messages))
    except BaseException:
        await messages.aclose()
        raise
    return sse.EventStream(first, messages, failed)

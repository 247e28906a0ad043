"""A server of the tiny model that is there to be attacked, and what each of its answers must be like.

Any request -> its answer, checked: a status that is stated, errors in OpenAI's form in one line,
nothing of this machine in them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from llada_uni.model import UniModel
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.scheduler.service import Service
from tests.serving.servers import PATIENCE, error_of, wait_for

LIMITS = Limits(max_body=2**20, max_prompt_chars=2000, max_pictures=3, max_n=2, max_tokens=16, timeout=60, max_pixels=10**6)
STATED = {200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 503, 504}  # 500 is stated for faults of ours alone
HERE = re.compile(r"Traceback|/home|/tmp|/root|/usr|site-packages|\.py\b|0x[0-9a-f]{6}")


@contextmanager
def attacked(model: Path, limits: Limits = LIMITS, **options: Any) -> Iterator[FastAPI]:
    """The application of a service that is ready; no request comes through a network."""
    service = Service(UniModel.from_pretrained(model, device="cpu"), limits)
    service.start()
    try:
        wait_for(lambda: service.ready or service.failure is not None, "the model")
        assert service.failure is None, service.failure
        yield create_app(service, ServerOptions(model_name="tiny", **options))
    finally:
        service.close()


def send(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    """One request; an answer that does not come in a minute, or an exception of the app, fails the test."""

    async def one() -> httpx.Response:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=None)
        async with client:
            return await asyncio.wait_for(client.request(method, path, **request), PATIENCE)

    answer = asyncio.run(one())
    check(answer)
    return answer


def check(answer: httpx.Response) -> None:
    """AssertionError unless the answer is one that a server may give to a stranger."""
    assert answer.status_code in STATED, (answer.status_code, answer.text[:300])
    if answer.status_code != 200:
        message = error_of(answer)["message"]
        assert len(message) < 500, message
        assert not HERE.search(message), message

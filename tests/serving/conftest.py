"""A tiny model, a service of it that is ready, and a loop to read jobs with."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from llada_uni.model import UniModel
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.scheduler.service import Service
from tests.tiny_model import make_tiny_model

PATIENCE = 60.0  # seconds after which what should have happened is taken to have failed


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Waits for something that other threads bring about."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, f"{what} did not happen"
        time.sleep(0.005)


@contextlib.contextmanager
def running(model: UniModel, **limits) -> Iterator[Service]:
    """A service that is ready, closed at the end."""
    service = Service(model, Limits(**limits))
    service.start()
    try:
        wait_until(lambda: service.ready or service.failure is not None, "the model was loaded")
        yield service
    finally:
        service.close()


def results(*jobs) -> list:
    """The outcomes of jobs, or what they raised, in order."""

    async def all_of_them():
        return await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)

    return asyncio.run(asyncio.wait_for(all_of_them(), PATIENCE))


def events_of(job) -> list:
    """All events of a job."""

    async def collect():
        return [event async for event in job.events()]

    return asyncio.run(asyncio.wait_for(collect(), PATIENCE))


@pytest.fixture(scope="session")
def serving_folder(tmp_path_factory, golden) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("serving") / "tiny", golden)


@pytest.fixture(scope="module")
def model(serving_folder) -> Iterator[UniModel]:
    """With one thread: how sums are split decides their last bit, and a service splits them its own way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield UniModel.from_pretrained(serving_folder, device="cpu")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def service(model) -> Iterator[Service]:
    with running(model) as ready:
        yield ready

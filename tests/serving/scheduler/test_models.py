"""Further models of a server: read when asked for, closed for others where memory is short, found by their names over HTTP."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from llada_uni.model import UniModel
from llada_uni.requests import Chat
from llada_uni.serving.errors import Draining, QueueFull
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.metrics import Metrics
from llada_uni.serving.scheduler import models as module
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.scheduler.models import Models, Offer, size_of
from tests.serving.conftest import results
from tests.serving.servers import asgi_client, error_of

WORDS = Chat(messages=[{"role": "user", "content": "hello"}], modalities=("text",), seed=1, max_tokens=4)
LIMITS = Limits(max_batch=2)


@pytest.fixture
def offers(serving_folder, monkeypatch):
    monkeypatch.setattr(module, "JUST_USED", 0.0)
    opened = []

    def offer(name):
        def open_():
            opened.append(name)
            return UniModel.from_pretrained(serving_folder, device="cpu")

        return Offer(open_, 100)

    made = {name: offer(name) for name in ("one", "two", "three")}
    yield made, opened


def test_a_model_is_read_once_when_it_is_asked_for(offers):
    made, opened = offers
    models = Models(made, None, LIMITS)
    try:
        assert models.loaded == () and opened == []
        with ThreadPoolExecutor(4) as threads:
            services = set(threads.map(models.get, ["one"] * 4))
        assert len(services) == 1 and opened == ["one"] and models.loaded == ("one",)
        assert results(services.pop().submit(WORDS))[0].end is not None
        with pytest.raises(KeyError):
            models.get("four")
    finally:
        models.close()


def test_the_one_unused_longest_makes_room(offers):
    made, opened = offers
    metrics = Metrics()
    models = Models(made, 250, LIMITS, metrics)
    try:
        first, second = models.get("one"), models.get("two")
        models.get("one")
        models.get("three")
        assert set(models.loaded) == {"one", "three"} and first.ready and not second.ready
        assert second not in metrics._watched and first in metrics._watched
        with pytest.raises(Draining):
            second.submit(WORDS)
        models.get("two")
        assert opened == ["one", "two", "three", "two"]
    finally:
        models.close()
    assert not first.ready and models.loaded == ()
    with pytest.raises(Draining):
        models.get("one")


def test_models_at_work_stay(offers, monkeypatch):
    made, _ = offers
    models = Models(made, 100, LIMITS)
    try:
        first = models.get("one")
        monkeypatch.setattr(type(first), "idle", property(lambda self: self is not first))
        with pytest.raises(QueueFull) as refused:
            models.get("two")
        assert refused.value.retry_after and models.loaded == ("one",) and first.ready
    finally:
        models.close()


def test_a_model_that_cannot_be_read_is_tried_again(offers, tmp_path):
    _, opened = offers
    (tmp_path / "config.json").write_text("{")

    def broken():
        opened.append("broken")
        return UniModel.from_pretrained(tmp_path, device="cpu")

    models = Models({"broken": Offer(broken, 1)}, None, LIMITS)
    try:
        for _ in range(2):
            with pytest.raises(Draining, match="cannot be loaded"):
                models.get("broken")
        assert opened == ["broken", "broken"] and models.loaded == ()
    finally:
        models.close()


def test_over_http(service, offers):
    models = Models(offers[0], None, LIMITS)
    client = asgi_client(create_app(service, ServerOptions(model_name="main"), models))
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "seed": 1}

    async def run():
        listed = await client.get("/v1/models")
        answers = [await client.post("/v1/chat/completions", json=body | {"model": name}) for name in ("two", "main", "four")]
        return listed, answers, await client.get("/v1/llada/defaults", params={"model": "two"})

    try:
        listed, (two, main, four), defaults = asyncio.run(run())
        assert [model["id"] for model in listed.json()["data"]] == ["main", "one", "two", "three"]
        assert two.json()["model"] == "two" and main.json()["model"] == "main" and models.loaded == ("two",)
        assert two.json()["choices"] == main.json()["choices"]  # one directory, one seed
        assert four.status_code == 404 and "'one'" in error_of(four)["message"]
        assert defaults.json()["model"] == "two"
    finally:
        models.close()


def test_the_size_of_a_directory_is_that_of_its_weights(serving_folder):
    every = sum(path.stat().st_size for path in serving_folder.rglob("*") if path.is_file())
    assert 0 < size_of(serving_folder) < every

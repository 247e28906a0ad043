"""The load benchmark: answers are really checked, phases count what came, and a short run goes through."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json

import httpx
import pytest
from PIL import Image

from benchmarks import serving
from benchmarks.serving import Answer, ask, check_images, check_story, check_words, crowd, mix, percentile, picture_fault


def encoded(*colors: str) -> str:
    image = Image.new("RGB", (len(colors), 1))
    for x, color in enumerate(colors):
        image.paste(color, (x, 0, x + 1, 1))
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


GOOD = encoded("red", "blue")


def said(content) -> dict:
    return {"choices": [{"message": {"content": content}}]}


def shown(picture: str) -> dict:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}


def test_answers_are_checked():
    assert picture_fault(GOOD) is None and check_images({"data": [{"b64_json": GOOD}]}) is None
    assert "no picture" in picture_fault("aGVsbG8=") and "one color" in picture_fault(encoded("red", "red"))
    assert check_words(said("a cat")) is None and check_words(said(" ")) == "no words"
    words = {"type": "text", "text": "a cat"}
    assert check_story(said([words, shown(GOOD)])) is None
    assert check_story(said([words])) and check_story(said([shown(GOOD)])) and check_story(said([words, shown("AAAA")]))


def test_five_requests_in_turn_are_five_tasks():
    asks = [mix(number, "data:,") for number in range(60)]
    assert [one.task for one in asks[:5]] == ["draw", "chat", "edit", "words", "story"]
    assert len({json.dumps(one.body, sort_keys=True) for one in asks}) == 60


def answering(handle) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://server")


@pytest.mark.parametrize(
    ("reply", "status", "fault"),
    [
        (httpx.Response(200, json=said("a cat")), 200, None),
        (httpx.Response(200, json=said("")), 200, "no words"),
        (httpx.Response(200, json={"choices": []}), 0, "IndexError"),
        (httpx.Response(200, text="not json"), 0, "JSONDecodeError"),
        (httpx.Response(429, json={}, headers={"Retry-After": "3"}), 429, None),
        (httpx.ConnectError("gone"), 0, "ConnectError"),
    ],
)
def test_what_came_is_what_is_counted(reply, status, fault):
    def handle(request):
        if isinstance(reply, Exception):
            raise reply
        return reply

    answer = asyncio.run(ask(answering(handle), mix(3, "")))
    assert answer.status == status and (answer.fault is None if fault is None else fault in answer.fault)
    assert answer.good is (status == 200 and fault is None)
    assert answer.retry_after == ("3" if status == 429 else None)


def test_a_crowd_goes_on_for_its_time():
    asked = []

    async def handle(request):
        asked.append(request.url.path)
        await asyncio.sleep(0.01)
        return httpx.Response(503, json={})

    answers, took = asyncio.run(crowd(answering(handle), 3, 0.05, "", itertools.count()))
    assert took >= 0.05 and len(answers) == len(asked) >= 3
    assert serving.faults_of(answers) == {"503": len(answers)}


def test_rows_hold_the_middle_and_the_tail():
    many = [Answer("draw", 200, float(second)) for second in range(1, 101)]
    alone = [Answer("draw", 200, 1.0), Answer("draw", 500, 9.0)]
    (row,) = serving.task_rows([*many, Answer("draw", 429, 0.0)], alone)
    assert (row.ours, row.theirs, row.more["p95"], row.more["answers"]) == (51.0, 1.0, 96.0, 100)
    assert percentile([3.0], 0.95) == 3.0


@pytest.mark.slow
def test_a_quick_run_has_no_failures(tmp_path):
    out = tmp_path / "rows.json"
    assert serving.main(["--quick", "--clients", "4", "--json", str(out)]) == 0
    rows = {row["case"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["throughput, 4 clients"]["more"]["failed"] == 0
    assert rows["refused above the limits (429)"]["more"]["others"] == 0
    assert rows["lost when told to stop under load"]["ours"] == 0
    assert rows["lost when told to stop under load"]["more"]["exit code"] == 0

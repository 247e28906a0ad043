"""Every request has a name and a line of the log; traces of the client go on in our spans."""

from __future__ import annotations

import json
import logging

import pytest

from llada_uni.errors import UserError
from llada_uni.serving.http import trace
from tests.serving.servers import ask, scripted, until_cancelled, words

CHAT, BODY = "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def test_a_name_comes_back():
    _, client = scripted(words)
    assert ask(client, "/health", "GET", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    refused = ask(client, CHAT, json={})
    assert refused.status_code == 400 and refused.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("name", ["with space", "x" * 129, ""])
def test_a_name_that_cannot_be_repeated_is_replaced(name):
    answer = ask(scripted(words)[1], "/health", "GET", headers={"x-request-id": name})
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_line_for_each_request(caplog):
    caplog.set_level(logging.INFO, trace.log.name)
    ask(
        scripted(words, api_keys=("k",))[1],
        CHAT,
        json=BODY,
        headers={"authorization": "Bearer k", "x-request-id": "a", **PARENT},
    )
    line = json.loads(trace.JsonLines().format(caplog.records[-1]))
    assert (line["request_id"], line["path"], line["status"], line["owner"], line["trace_id"]) == (
        "a",
        CHAT,
        200,
        "key 1",
        TRACE,
    )
    assert line["level"] == "info" and line["seconds"] >= 0 and "Bearer" not in json.dumps(line)


@pytest.mark.parametrize("given", ["", "00-" + 32 * "0" + "-00f067aa0ba902b7-01", "nonsense", f"00-{TRACE}-1-01"])
def test_what_is_no_trace_is_none(given):
    assert trace.trace_of({"headers": [(b"traceparent", given.encode())]}) is None


def test_json_lines_hold_exceptions():
    try:
        raise RuntimeError("no\nroom")
    except RuntimeError as error:
        record = logging.LogRecord("a.b", logging.ERROR, "", 1, "failed %s", ("x",), (type(error), error, None))
    line = trace.JsonLines().format(record)
    assert "\n" not in line and json.loads(line)["message"] == "failed x" and "RuntimeError" in json.loads(line)["exception"]


def test_spans_of_requests_and_jobs():
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    spans = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    trace.use_tracer(provider.get_tracer("test"))
    try:
        assert ask(scripted(words)[1], CHAT, json=BODY, headers=PARENT).status_code == 200
        assert ask(scripted(words)[1], CHAT, json=BODY | {"stream": True}, headers=PARENT).status_code == 200
    finally:
        trace.use_tracer(None)
    found = spans.get_finished_spans()
    assert {span.name for span in found} == {f"POST {CHAT}", "llada_uni.jobs"}
    assert all(f"{span.context.trace_id:032x}" == TRACE for span in found)
    server = next(span for span in found if span.name == f"POST {CHAT}")
    assert server.attributes["http.response.status_code"] == 200
    inner = next(span for span in found if span.name == "llada_uni.jobs")
    assert inner.attributes["task"] == "Chat" and inner.parent.span_id in {span.context.span_id for span in found}


def test_tracing_without_opentelemetry_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(UserError, match=r"llada-uni\[otel\]"):
        trace.start_tracing("x")


def test_limits_stand_in_the_headers():
    from llada_uni.serving.scheduler.limits import Limits

    _, client = scripted(until_cancelled, Limits(rate=2))
    first, second, third = (ask(client, "/v1/models", "GET") for _ in range(3))
    assert [one.headers["x-ratelimit-remaining-requests"] for one in (first, second)] == ["1", "0"]
    assert third.status_code == 429 and third.headers["x-ratelimit-limit-requests"] == "2"
    assert 0 < float(third.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60

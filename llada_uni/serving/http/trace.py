"""Who asked what, and how long it took: a name for every request, a line of the log, and spans where tracing is on.

`x-request-id` of the client (or one drawn here) stands in `request.state.request_id`, in the answer and in the log;
`traceparent` (W3C Trace Context) says which trace a request belongs to. With OpenTelemetry (`start_tracing`) every request
is a span of that trace, and every job of it a span inside.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

from llada_uni.errors import UserError
from llada_uni.serving.http.body_limit import App, Message, Receive, Scope, Send, header

log = logging.getLogger("llada_uni.requests")

REQUEST_ID = re.compile(r"[!-~]{1,128}")  # what may go into a header and a log as it is
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_tracer: Any = None  # OpenTelemetry's, where tracing is on


class Traced:
    """ASGI middleware: names the request, tells of its end, and holds its span."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        name, began = _name_of(scope), time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = name
        answered = {"status": 0}

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered["status"] = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name.encode("latin-1"))]}
            await send(message)

        with span(f"{scope['method']} {scope['path']}", scope) as current:
            try:
                await self.app(scope, receive, named)
            finally:
                seconds = time.perf_counter() - began
                _tell(scope, name, answered["status"], seconds)
                if current is not None:
                    current.set_attribute("http.response.status_code", answered["status"])
                    current.set_attribute("llada_uni.request_id", name)


def _name_of(scope: Scope) -> str:
    given = (header(scope, b"x-request-id") or b"").decode("latin-1")
    return given if REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def trace_of(scope: Scope) -> str | None:
    """The id of the trace that a request says it belongs to."""
    found = TRACEPARENT.fullmatch((header(scope, b"traceparent") or b"").decode("latin-1"))
    return found[1] if found and set(found[1]) != {"0"} else None


def _tell(scope: Scope, name: str, status: int, seconds: float) -> None:
    owner = scope.get("state", {}).get("owner")
    about = {
        "request_id": name, "method": scope["method"], "path": scope["path"], "status": status,
        "seconds": round(seconds, 3), "owner": owner, "trace_id": trace_of(scope),
    }  # fmt: skip
    log.info("%s %s %s", scope["method"], json.dumps(scope["path"])[1:-1], status, extra={"about": about})


class JsonLines(logging.Formatter):
    """Log records as one JSON object a line: time, level, logger, message, and what a request's record says beside it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        line |= {key: value for key, value in getattr(record, "about", {}).items() if value is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


# --- OpenTelemetry ---


def start_tracing(service: str) -> None:
    """Spans go where OTEL_EXPORTER_OTLP_ENDPOINT says. service: the name of this server in them, where OTEL_SERVICE_NAME
    names none. UserError without OpenTelemetry.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UserError("tracing needs OpenTelemetry: pip install 'llada-uni[otel]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    use_tracer(trace.get_tracer("llada_uni"))


def use_tracer(tracer: Any) -> None:
    """Where spans are begun from now on; None: nowhere."""
    global _tracer
    _tracer = tracer


@contextlib.contextmanager
def span(name: str, scope: Scope | None = None, **attributes: Any) -> Iterator[Any]:
    """A span while the block runs, inside the current one; scope: of a request whose headers may name its trace. None where
    tracing is off.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    context = kind = None
    if scope is not None:
        kind = SpanKind.SERVER
        context = extract({key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]})
    with _tracer.start_as_current_span(name, context=context, kind=kind or SpanKind.INTERNAL, attributes=attributes) as current:
        yield current

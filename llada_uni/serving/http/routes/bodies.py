"""From the bytes of a request to a checked body: JSON or a form, with every way to be broken named in words.

Bytes -> `parse_json` (in a thread: a body may have megabytes) -> pydantic. FastAPI's routes do the
same through `JsonRoute`; the one route that takes JSON or a form calls `read_json` and `read_form` itself.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from llada_uni.serving.errors import NoSpace
from llada_uni.serving.http.lenient import MOST_ROUNDS, without_faults
from llada_uni.serving.http.protocol.errors import LONGEST_ECHO, ApiError, describe

MOST_VALUES = 100_000  # values in one body; a conversation has hundreds
MOST_FIELDS = 64  # of a form
JSON, FORM = "application/json", "multipart/form-data"
_ADDRESS = re.compile(r"(data|https?|file|ftp):", re.IGNORECASE)

Model = TypeVar("Model", bound=BaseModel)


class BadBody(HTTPException):
    """A body that cannot be read at all. An HTTPException, because FastAPI hides any other that reading a body raises."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(400, message)
        self.param = param


def parse_json(body: bytes) -> Any:
    """The value that strict JSON in UTF-8 holds; a byte order mark before it is passed over. BadBody for anything else: also
    for NaN, half characters, a name given twice in one object, numbers of thousands of digits, and nesting or numbers of
    values that no real request has.
    """
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise BadBody(f"the body has too many values; allowed: about {MOST_VALUES}")
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_each_once)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise BadBody(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except UnicodeDecodeError:
        raise BadBody("the body is not UTF-8") from None
    except UnicodeEncodeError:
        raise BadBody("the body has half a character (a surrogate without its other half)") from None
    except RecursionError:
        raise BadBody("the body is nested too deep") from None
    except ValueError:  # Python's own limit
        raise BadBody("the body has a number with too many digits") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise BadBody(f"the body is not JSON: {name} is no number in it")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, each name of which is there once: of two values, a proxy in front may have read the other one."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)[:LONGEST_ECHO]
        raise BadBody(f"{twice} is given twice", twice)
    return value


def check_kind(request: Request, *allowed: str) -> str:
    """The content type of a request, without its parameters. ApiError 415 for one that is not `allowed`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in allowed:
        message = f"the content type must be {' or '.join(allowed)}, not {kind[:80] or 'missing'}"
        raise ApiError(415, message, code="unsupported_media_type")
    return kind


class JsonRequest(Request):
    """A request whose JSON is read strictly, and once: a lenient server takes out of it what it does not know."""

    async def json(self) -> Any:
        if not hasattr(self, "_value"):
            self._value = await run_in_threadpool(parse_json, await self.body())
        return self._value


class JsonRoute(APIRoute):
    """A route whose body is JSON and nothing else."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            check_kind(request, JSON)
            assert self.body_field is not None, "every route of this kind has a body"
            body: Any = self.body_field.field_info.annotation
            read = JsonRequest(request.scope, request.receive)
            for _ in range(MOST_ROUNDS):
                try:
                    return await handle(read)
                except RequestValidationError as error:
                    if not is_lenient(request) or not forgive(request, await read.json(), error.errors(), body):
                        raise describe(error.errors(), body) from None
            raise ApiError(400, "the body has too many fields that are unknown or not supported")

        return strict


def is_lenient(request: Request) -> bool:
    return bool(request.app.state.context.options.lenient)


def forgive(request: Request, value: Any, errors: Sequence[Mapping[str, Any]], body: Any) -> bool:
    """Whether a lenient server has taken the faults out of a body; its warnings are noted with the request."""
    if not is_lenient(request):
        return False
    warnings = without_faults(value, errors, getattr(body, "main", ""))
    request.state.warnings = [*warnings_of(request), *warnings]
    return bool(warnings)


def warnings_of(request: Request) -> list[str]:
    """What a lenient server left out of a request."""
    return getattr(request.state, "warnings", [])


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body of a request as `model`. Raises BadBody and ApiError."""
    value = await run_in_threadpool(parse_json, await request.body())
    return _validated(request, model, value, strict=True)


async def read_form(
    request: Request, model: type[Model], files: tuple[str, ...], most_files: int, most_bytes: int
) -> tuple[Model, dict[str, list[bytes | str]]]:
    """(fields of a form as `model`, what came under the names `files`: contents, or text). Text is read as the type that a
    field has; `name[key]` is the field `key` of the object `name`, as OpenAI's SDK writes it. A file may come without a name;
    one without name and content is a field left empty. most_bytes: of a field.
    """
    fields: dict[str, Any] = {}
    uploads: dict[str, list[bytes | str]] = {name: [] for name in files}
    try:
        async with request.form(max_files=most_files, max_fields=MOST_FIELDS, max_part_size=most_bytes) as form:
            for name, value in form.multi_items():
                if name in files:
                    content = _uri_or_bytes(value) if isinstance(value, str) else await value.read()
                    if content or (not isinstance(value, str) and value.filename):
                        uploads[name].append(content)
                elif isinstance(value, str):
                    _put(fields, name, value)
                else:
                    raise ApiError(400, f"{name[:60]} must be text, not a file; files go under {', '.join(files)}", name[:60])
    except OSError as error:  # larger files lie in the system's temporary directory meanwhile
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace("the server has no space left for uploads; try again later, or send the images as JSON", 30) from error
    return _validated(request, model, fields, strict=False), uploads


def _uri_or_bytes(value: str) -> str | bytes:
    """What stands in a part without a file name: an address as it is, else the bytes of a file, as they were sent.

    The form's reader makes text of such a part: UTF-8, and Latin-1 where its bytes are none. So they can be had back.
    """
    if _ADDRESS.match(value):
        return value
    try:
        sent = value.encode("latin-1")
        sent.decode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return sent
    return value.encode("utf-8")


def _put(fields: dict[str, Any], name: str, value: str) -> None:
    inner = re.fullmatch(r"(\w+)\[(\w+)\]", name)
    target, key = (fields.setdefault(inner[1], {}), inner[2]) if inner else (fields, name)
    if not isinstance(target, dict) or key in target:
        raise ApiError(400, f"{name[:60]} is given twice", name[:60])
    target[key] = _number(value) if inner else value  # records inside a body read their fields strictly


def _number(text: str) -> int | float | str:
    """The number that a text is, else the text."""
    for kind, pattern in ((int, r"-?[0-9]{1,20}"), (float, r"-?[0-9]{1,20}\.[0-9]{1,20}(e-?[0-9]{1,3})?")):
        if re.fullmatch(pattern, text):
            return kind(text)
    return text


def _validated(request: Request, model: type[Model], value: Any, strict: bool) -> Model:
    while True:
        try:
            return model.model_validate(value, strict=strict)
        except ValidationError as error:
            if not forgive(request, value, error.errors(), model):  # each round takes something out
                raise describe(error.errors(), model) from None

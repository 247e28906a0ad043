"""The HTTP application: guards, routes, errors, signs of life and the studio put together. Nothing here touches a tensor.

A request passes the guards (`guard.py`: key, rate, size) and reaches a route (`routes/`), which makes a typed request of
it; `Service.submit` takes that, and an answer or a stream comes back. Whatever goes wrong is answered in OpenAI's form.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from llada_uni.errors import UserError
from llada_uni.serving.errors import ServingError
from llada_uni.serving.http.guard import install_guards
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.http.pictures import PictureMemory
from llada_uni.serving.http.protocol.errors import ApiError, ErrorBody, error_body
from llada_uni.serving.http.protocol.models import Health, Ready
from llada_uni.serving.http.quota import Quotas
from llada_uni.serving.http.routes import chat, images, models, responses, streams
from llada_uni.serving.http.routes.context import VERSION, Context, Here
from llada_uni.serving.http.routes.running import ClientGone

if TYPE_CHECKING:
    from llada_uni.serving.scheduler.models import Models
    from llada_uni.serving.scheduler.service import Service

STUDIO = Path(__file__).parents[1] / "web"
FRESH = {"Cache-Control": "no-cache"}  # asked for each time: after an upgrade old and new modules must not mix
life = APIRouter(tags=["health"])
CLIENT_GONE = 499  # nobody reads it; the number is the one that proxies log
# Each route may answer these; a body that is understood but cannot be done is 400.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is refused: wrong, too much, without a key, unknown."},
    "5XX": {"model": ErrorBody, "description": "The server failed (500), takes nothing now (503), or took too long (504)."},
}


def create_app(service: Service, options: ServerOptions | None = None, further: Models | None = None) -> FastAPI:
    """The server of one service, and of further models. The caller starts and closes both; any ASGI server runs the app."""
    options = options or ServerOptions()
    app = FastAPI(
        title="LLaDA-Uni",
        version=VERSION,
        description="One block-diffusion model that reads and draws, behind OpenAI's API with some fields more.",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context = Context(
        service, options, PictureMemory(service.limits.max_held_pixels), further, Quotas(options.quotas)
    )
    key = [Depends(HTTPBearer(auto_error=False))] if options.api_keys else []  # tells /openapi.json; the guard checks it
    app.include_router(life, responses=ERRORS)
    for router in (models.router, chat.router, responses.router, streams.router, images.drawing, images.editing):
        app.include_router(router, responses=ERRORS, dependencies=key)
    _describe_more(app, images.COMPONENTS)
    mount_studio(app)
    _install_errors(app, context)
    install_guards(app, options, service.limits, context.quotas)
    if options.cors_origins:
        origins = list(options.cors_origins)
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    return app


def _describe_more(app: FastAPI, schemas: dict[str, Any]) -> None:
    """Adds schemas to /openapi.json that FastAPI does not find by itself."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        document = describe()
        document["components"]["schemas"].update(schemas)
        return document

    vars(app)["openapi"] = described


def _install_errors(app: FastAPI, context: Context) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        status, body = context.explain(error, getattr(request.state, "body", None))
        after = getattr(error, "retry_after", None)
        return _answer(status, body, {} if after is None else {"Retry-After": str(after)})

    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = _MESSAGES.get(error.status_code, str(error.detail))
        body = error_body(error.status_code, message, getattr(error, "param", None))
        return _answer(error.status_code, body, dict(error.headers or {}))

    async def gone(_: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    for kind in (ApiError, UserError, ServingError):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientGone, gone)


_MESSAGES = {
    404: "there is nothing at this address; /openapi.json lists what there is",
    405: "this address does not take this method; /openapi.json lists what it takes",
}


def _answer(status: int, body: ErrorBody, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse(body.model_dump(), status, headers)


# --- signs of life, for probes and dashboards ---


@life.get("/health")
async def health() -> Health:
    """The process lives, whether or not its model is loaded."""
    return Health(version=VERSION)


@life.get("/ready")
async def ready(here: Here) -> Ready:
    """The model is loaded and requests are taken; else 503 with the reason."""
    here.check_ready()
    return Ready(model=here.options.model_name)


@life.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(here: Here) -> Response:
    """Counters and histograms in Prometheus' text form."""
    numbers = here.service.metrics
    return Response(numbers.render(), media_type=numbers.content_type)


# --- the web studio: the page at /, its files under /studio ---


class FreshFiles(StaticFiles):
    def file_response(self, *given: Any, **named: Any) -> Response:
        response = super().file_response(*given, **named)
        response.headers.update(FRESH)
        return response


def mount_studio(app: FastAPI) -> None:
    """Serves the page, which talks to the other routes like any client."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STUDIO / "index.html", headers=FRESH)

    app.mount("/studio", FreshFiles(directory=STUDIO))

"""Signs of life for probes and dashboards: /health, /ready, /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from llada_uni.serving.errors import Draining
from llada_uni.serving.protocol.models import Health, Ready
from llada_uni.serving.routes.context import VERSION, Here

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> Health:
    """The process lives, whether or not its model is loaded."""
    return Health(version=VERSION)


@router.get("/ready")
async def ready(here: Here) -> Ready:
    """The model is loaded and requests are taken; else 503 with the reason."""
    if here.service.failure is not None:
        raise Draining(here.service.failure)
    if not here.service.ready:
        raise Draining("the model is loading, or the server is stopping", retry_after=2)
    return Ready(model=here.options.model_name)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(here: Here) -> Response:
    """Counters and histograms in Prometheus' text form."""
    numbers = here.service.metrics
    return Response(numbers.render(), media_type=numbers.content_type)

"""Signs of life for probes and dashboards: /health, /ready, /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from llada_uni.serving.http.protocol.models import Health, Ready
from llada_uni.serving.http.routes.context import VERSION, Here

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> Health:
    """The process lives, whether or not its model is loaded."""
    return Health(version=VERSION)


@router.get("/ready")
async def ready(here: Here) -> Ready:
    """The model is loaded and requests are taken; else 503 with the reason."""
    here.check_ready()
    return Ready(model=here.options.model_name)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(here: Here) -> Response:
    """Counters and histograms in Prometheus' text form."""
    numbers = here.service.metrics
    return Response(numbers.render(), media_type=numbers.content_type)

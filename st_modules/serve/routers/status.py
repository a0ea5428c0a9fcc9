"""``/health``, ``/ready`` and ``/metrics``, which answer without a key."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from st_modules.serve.service import Service

router = APIRouter(tags=["Status"])


# Some load balancers ask by HEAD.
@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: {"description": "The last batch failed for no fault of its items."}})
async def ready(request: Request) -> Response:
    """Say whether the model embeds."""
    service: Service = request.app.state.service
    return JSONResponse({"status": "ready"}) if service.is_well else JSONResponse({"status": "failing"}, 503)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Say what Prometheus asks for."""
    service: Service = request.app.state.service
    return Response(service.metrics.render(), media_type=service.metrics.content_type)

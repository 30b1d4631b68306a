"""For Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.guard import TELEMETRY_PATH

router = APIRouter(tags=["health"])


@router.get(TELEMETRY_PATH, response_class=Response)
def read_telemetry(request: Request) -> Response:
    """Requests, jobs by status, queue, workers, streams and webhooks of all projects, for Prometheus. Scope admin."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)

"""The HTTP service: `uvicorn api.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api import openapi, outbox, reaper
from api.background import Repeated
from api.database import engine
from api.errors import handle_errors
from api.middleware import BodyLimit, RequestId
from api.routes import benchmarks, compare, files, health, jobs, runs
from api.schemas import ErrorView
from api.settings import settings


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The relay and the reaper live as long as the server."""
    relay = Repeated("relay", settings().outbox_seconds, outbox.drain)
    reaping = Repeated("reaper", settings().reaper_seconds, reaper.look)
    app.state.relay = relay
    app.state.background = (relay, reaping)
    for thread in app.state.background:
        thread.start()
    yield
    for thread in app.state.background:
        thread.stop()
    engine().dispose()


def create_app() -> FastAPI:
    """The service by the settings of the environment."""
    app = FastAPI(
        title="MHPO",
        version=version("mhpo"),
        description="Reinforcement-trains reasoning models: POST a job, get a reward curve, scored checkpoints and a model.",
        lifespan=_lifespan,
        responses={"4XX": {"model": ErrorView}, "5XX": {"model": ErrorView}},
    )
    app.add_middleware(
        BodyLimit, limit=settings().max_body_bytes, upload_path=files.PATH, upload_limit=settings().max_upload_bytes
    )
    app.add_middleware(RequestId)
    handle_errors(app)
    openapi.describe(app)
    for router in (jobs.router, runs.router, benchmarks.router, compare.router, files.router, health.router):
        app.include_router(router)
    return app


app = create_app()

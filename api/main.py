"""The HTTP service: `uvicorn api.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware

from api import checkpoint_files, openapi, outbox, reaper, webhooks
from api.background import Repeated
from api.conditional import ConditionalGet
from api.database import engine, most_connections
from api.docs_page import serve_docs
from api.errors import handle_errors
from api.middleware import BodyLimit, RequestId
from api.page.serve import serve_page
from api.routes import benchmarks, compare, files, health, jobs, keys, openai, plans, runs, slots, stream, telemetry
from api.routes import webhooks as webhook_routes
from api.schemas import ErrorView
from api.security import secure
from api.settings import settings
from api.streams import Streams
from api.telemetry import Requests, open_streams, registry, request_seconds

# Weights do not get smaller, a file's bytes must stay those that were asked for, and streams are sent as they come.
_SENT_AS_THEY_ARE = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/x-tar", "application/octet-stream")
_LEAST_TO_COMPRESS = 1024  # bytes
_RELAY_REST = 0.1  # seconds: a burst of jobs is hinted at in batches
_GZIP_LEVEL = 4  # 9 takes six times as long for curves that are 3% smaller


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The relay, the reaper and the streams live as long as the server."""
    to_thread.current_default_thread_limiter().total_tokens = most_connections()
    relay = Repeated("relay", settings().outbox_seconds, outbox.drain, rest=_RELAY_REST)
    reaping = Repeated("reaper", settings().reaper_seconds, reaper.look)
    hashing = Repeated("checkpoint hashes", settings().reaper_seconds, checkpoint_files.hash_new)
    sending = Repeated("webhooks", settings().webhook_seconds, webhooks.deliver)
    threads = (relay, reaping, hashing, sending)
    streams: Streams = app.state.streams
    app.state.relay = relay
    app.state.background = (*threads, streams)
    for thread in threads:
        thread.start()
    async with streams.listening():
        yield
    for thread in threads:
        thread.stop()
    engine().dispose()


def create_app() -> FastAPI:
    """The service by the settings of the environment."""
    app = FastAPI(
        title="MHPO",
        version=version("mhpo"),
        description="Reinforcement-trains reasoning models: POST a job, get a reward curve, scored checkpoints and a model.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": ErrorView}, "5XX": {"model": ErrorView}},
    )
    app.state.registry = registry()
    app.state.streams = Streams(open_streams(app.state.registry))
    app.add_middleware(ConditionalGet)
    app.add_middleware(
        GZipMiddleware,
        minimum_size=_LEAST_TO_COMPRESS,
        compresslevel=_GZIP_LEVEL,
        exclude_content_types=_SENT_AS_THEY_ARE,
    )
    app.add_middleware(Requests, seconds=request_seconds(app.state.registry))
    app.add_middleware(
        BodyLimit, limit=settings().max_body_bytes, upload_path=files.PATH, upload_limit=settings().max_upload_bytes
    )
    secure(app)
    app.add_middleware(RequestId)
    handle_errors(app)
    openapi.describe(app)
    for part in (openai, plans, jobs, runs, stream, benchmarks, compare, files, webhook_routes, telemetry, slots, keys, health):
        app.include_router(part.router)
    serve_docs(app)
    serve_page(app)
    return app


app = create_app()

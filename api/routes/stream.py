"""A job's news as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.dependencies import SessionDep
from api.news import Kind, Position
from api.record_read import find_job
from api.streams import Streams
from trainer.strict import SpecError

RETRY_MS = 3000  # how long a browser waits before it connects again

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["runs"])


def _found(job_id: str, session: SessionDep) -> str:
    """The job's id, if there is such a job; the connection that this took is free again before the stream begins."""
    found = find_job(session, job_id).id
    session.rollback()
    return found


async def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


async def _start(
    start: Annotated[
        Literal["beginning", "now"], Query(alias="from", description="Where to start without a `Last-Event-ID`")
    ] = "beginning",
    last_event_id: Annotated[str | None, Header(description="The `id` of the last event that arrived")] = None,
    after: Annotated[str | None, Query(description="The same, for clients that cannot set the header")] = None,
) -> Position | None:
    text = last_event_id or after
    if not text:
        return Position() if start == "beginning" else None
    try:
        return Position.parse(text)
    except ValueError:
        raise SpecError("Last-Event-ID", f"this is no id of an event of this stream: {text[:80]!r}") from None


@router.get("/stream", response_class=EventSourceResponse)
async def stream_job(
    job_id: Annotated[str, Depends(_found)],
    start: Annotated[Position | None, Depends(_start)],
    streams: Annotated[Streams, Depends(_streams)],
    kinds: Annotated[list[Kind] | None, Query(description="Which to send; all if left out")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Everything about a job as it happens: `status`, `event`, `metrics` (a step) and `log` (lines of the trainer's log).

    An `id` is a position in all four: sent back as `Last-Event-ID`, the stream goes on behind it, nothing left out and nothing
    twice, also after the service was restarted. `status` comes first unless it is known. A step that is done again after a
    job went back to a checkpoint comes again with a higher `attempt`: a step replaces itself and all behind it.
    """
    yield ServerSentEvent(retry=RETRY_MS)
    async for item, position in streams.follow(job_id, start):
        if kinds is None or item.kind in kinds:
            yield ServerSentEvent(event=item.kind, raw_data=item.data, id=str(position))

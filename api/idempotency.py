"""A request that is sent twice makes one job.

With an `Idempotency-Key` for 24 hours, and 409 where the key comes with another body. Without one, a client that says that
it repeats itself (`x-stainless-retry-count` above 0, as OpenAI's does after an answer that was lost) is given the job of the
same body of the last two minutes. Both hold while the first request is still being served: the second waits for it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, NamedTuple

from fastapi import Depends, Header
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from api.errors import ApiError
from api.models import Creation, Json
from api.scoping import PROJECT

KEPT = timedelta(hours=24)
_REPEATED_WITHIN = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a client says of a request that makes something: its key, and whether it has sent it before."""

    key: str | None
    repeated: bool


async def _attempt(
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="The same request sent again makes nothing new")
    ] = None,
    x_stainless_retry_count: Annotated[int, Header(ge=0, le=1000, include_in_schema=False)] = 0,
) -> Attempt:
    return Attempt(idempotency_key, x_stainless_retry_count > 0)


AttemptDep = Annotated[Attempt, Depends(_attempt)]


class Made(NamedTuple):
    """The job that a request is answered with, and whether the same request had made it before."""

    job_id: str
    before: bool


def once(session: Session, attempt: Attempt, route: str, body: Json, create: Callable[[], str]) -> Made:
    """The job that `create` makes, or that the same request has made before.

    Works in the caller's transaction. Raises ApiError 409 for a key that came with another body.
    """
    fingerprint = _sha256(route, body)
    _wait_for_twins(session, attempt, fingerprint)
    earlier = _earlier(session, attempt, fingerprint)
    if earlier is not None:
        return Made(earlier, before=True)
    job_id = create()
    row = {"key": attempt.key, "fingerprint": fingerprint, "job_id": job_id}
    statement = upsert(Creation).values(row)
    anew = {"fingerprint": fingerprint, "job_id": job_id, "created_at": func.now()}  # of a key that is older than a day
    session.execute(statement.on_conflict_do_update(index_elements=["project", "key"], set_=anew))
    return Made(job_id, before=False)


def forget_old(session: Session) -> None:
    """Remove what no request can be a repetition of any more."""
    session.execute(
        delete(Creation).where(Creation.created_at < func.now() - KEPT).execution_options(synchronize_session=False)
    )


def _earlier(session: Session, attempt: Attempt, fingerprint: str) -> str | None:
    kept = Creation.created_at > func.now() - KEPT
    mine = select(Creation).where(kept).order_by(Creation.id.desc()).limit(1)
    if attempt.key is not None:
        made = session.scalar(mine.where(Creation.key == attempt.key))
        if made is not None and made.fingerprint != fingerprint:
            message = f"the idempotency key {attempt.key[:80]!r} came before with another body, which made {made.job_id}"
            raise ApiError(HTTPStatus.CONFLICT, "idempotency_key_reused", message, "Idempotency-Key")
    elif attempt.repeated:
        recent = Creation.created_at > func.now() - _REPEATED_WITHIN
        made = session.scalar(mine.where(Creation.fingerprint == fingerprint, recent))
    else:
        return None
    return None if made is None else made.job_id


def _wait_for_twins(session: Session, attempt: Attempt, fingerprint: str) -> None:
    """Until the end of this transaction no other request of the same key goes on, and none that repeats the same body.

    Those that are sent for the first time go on beside each other: who wants a job twice gets it twice.
    """
    text = f"{session.info.get(PROJECT)}\0{attempt.key or fingerprint}"
    lock = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True)
    first = attempt.key is None and not attempt.repeated
    session.execute(select(func.pg_advisory_xact_lock_shared(lock) if first else func.pg_advisory_xact_lock(lock)))


def _sha256(route: str, body: Json) -> str:
    return hashlib.sha256(f"{route}\0{json.dumps(body, sort_keys=True)}".encode()).hexdigest()

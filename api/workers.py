"""Which workers there are, for people to see; what a worker may do is decided by its lease alone."""

from datetime import timedelta

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.models import Worker


def worker_seen(session: Session, name: str, host: str, pid: int, queue: str) -> None:
    """Note that a worker lives; a new process under the same name starts anew."""
    statement = insert(Worker).values(name=name, host=host, pid=pid, queue=queue)
    fresh = {"host": host, "pid": pid, "queue": queue, "started_at": func.now(), "seen_at": func.now()}
    session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=fresh, where=Worker.pid != pid))
    again = insert(Worker).values(name=name, host=host, pid=pid, queue=queue)
    session.execute(again.on_conflict_do_update(index_elements=["name"], set_={"seen_at": func.now()}))


def workers_seen() -> Select[int]:
    """How many were seen in the last minute."""
    return select(func.count()).select_from(Worker).where(Worker.seen_at > func.now() - timedelta(minutes=1))

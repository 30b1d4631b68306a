"""A session that serves a caller reads, changes and makes rows of the caller's project only, whatever the query.

The project is `session.info["project"]`, taken from the caller when the session is made. A session of no request (relay,
reaper, worker) has none and sees all. It holds for every query through the ORM: `select`, `get`, `update`, `delete`,
`insert`, `add`. What belongs to a job (events, metrics, samples, checkpoints) is reached by the id of a job that was found.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, event, select
from sqlalchemy.orm import LoaderCriteriaOption, ORMExecuteState, Session, SessionTransaction, with_loader_criteria

from api.caller import CALLER
from api.models import Evaluation, Job, Owned

PROJECT = "project"
CONNECTION = "connection"  # in a session's info: the last one that it was given


class ScopedSession(Session):
    """Belongs to the caller of the request in which it is made."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        caller = CALLER.get()
        if caller is not None:
            self.info[PROJECT] = caller.project


@event.listens_for(ScopedSession, "after_begin")
def _remember(session: Session, _: SessionTransaction, connection: Connection) -> None:
    session.info[CONNECTION] = connection


@event.listens_for(ScopedSession, "do_orm_execute")
def _only_of_the_project(state: ORMExecuteState) -> None:
    project = state.session.info.get(PROJECT)
    if project is None or state.is_column_load or state.is_relationship_load:
        return
    if state.is_insert:
        mapper = state.bind_mapper
        if mapper is not None and issubclass(mapper.class_, Owned):
            state.statement = state.statement.values(project=project)  # type: ignore[attr-defined]  # it is an Insert
        return
    state.statement = state.statement.options(*_criteria(project))


@lru_cache(maxsize=256)
def _criteria(project: str) -> tuple[LoaderCriteriaOption, LoaderCriteriaOption]:
    return (
        with_loader_criteria(Owned, lambda table: table.project == project, include_aliases=True),
        with_loader_criteria(
            Evaluation,
            lambda table: table.job_id.in_(select(Job.id).where(Job.project == project)),
            include_aliases=True,
        ),
    )


@event.listens_for(ScopedSession, "before_flush")
def _new_rows_get_the_project(session: Session, *_: Any) -> None:
    if (project := session.info.get(PROJECT)) is not None:
        for row in session.new:
            if isinstance(row, Owned):
                row.project = project

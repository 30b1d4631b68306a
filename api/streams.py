"""News of jobs as they happen: one LISTEN connection a process, one reader a watched job, any number of streams.

PostgreSQL tells of every committed change of a job (triggers of the schema). A job that is watched is then read once, and
all its streams are given what was found. A stream touches the database only to catch up, when it begins or has fallen behind.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from typing import TypeVar

import psycopg
from anyio import CapacityLimiter, to_thread
from prometheus_client import Gauge
from psycopg.conninfo import make_conninfo

from api import news
from api.database import KEEPALIVES, OUTAGES, engine, sessions
from api.news import Item, Position

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHANNEL = "job_changes"  # as in the schema's triggers; the payload is the job's id
LISTENER = "mhpo streams"  # the name of the listening connection, for who looks at the database's sessions
_BUFFER = 2000  # items that a slow stream may be behind before it reads the record itself
_LOG_SECONDS = 0.5  # between two looks at the size of a watched job's log
_OUTAGE_SECONDS = 1.0


class Feed:
    """The newest items of one job, and the task that reads them."""

    def __init__(self, job_id: str, limiter: CapacityLimiter) -> None:
        self.job_id = job_id
        self.streams = 0
        self._limiter = limiter
        self._count = 0  # items since the feed began; the buffer holds the last of them
        self._buffer: deque[Item] = deque(maxlen=_BUFFER)
        self._more = asyncio.Event()  # set, and replaced, when items are added
        self._dirty = asyncio.Event()
        self._opening = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def open(self) -> None:
        """Begin to read; what is committed from now on is in the buffer."""
        async with self._opening:
            if self._task is None:
                self._task = asyncio.create_task(self._read_on(await self._present()), name=f"feed {self.job_id}")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def wake(self) -> None:
        """Have the job read again."""
        self._dirty.set()

    def end(self) -> None:
        """Have every stream end behind what it has sent; its reader asks another process for the rest."""
        self._over.set()
        self._more.set()

    async def follow(self, position: Position | None) -> AsyncIterator[tuple[Item, Position]]:
        """Every item behind `position` (None: from now on) with the position after it, each once, until `end`."""
        position = await self._present() if position is None else position
        while not self._over.is_set():
            seen = self._count  # what comes while the record is read is then in both, and known by its position
            async for item in self._catch_up(position):
                position = position.after(item)
                yield item, position
            while not self._over.is_set() and (missing := self._count - seen) <= len(self._buffer):
                more = self._more
                for item in list(islice(self._buffer, len(self._buffer) - missing, None)):
                    if not position.knows(item):
                        position = position.after(item)
                        yield item, position
                seen += missing
                if seen == self._count:
                    await more.wait()

    async def _catch_up(self, position: Position) -> AsyncIterator[Item]:
        more = True
        while more and not self._over.is_set():
            items, more = await self._read(partial(_since, self.job_id, position))
            for item in items:
                position = position.after(item)
                yield item

    async def _read_on(self, position: Position) -> None:
        while True:
            self._dirty.clear()
            log_size = news.log_size(self.job_id)
            async for item in self._catch_up(position):
                position = position.after(item)
                self._add(item)
            await self._change(log_size)

    def _add(self, item: Item) -> None:
        self._buffer.append(item)
        self._count += 1
        self._more.set()
        self._more = asyncio.Event()

    async def _change(self, log_size: int) -> None:
        """Until the record tells of a change, or the log has no longer the size that it had before the last look."""
        while not self._dirty.is_set() and news.log_size(self.job_id) == log_size:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), _LOG_SECONDS)

    async def _present(self) -> Position:
        return await self._read(partial(_present, self.job_id))

    async def _read(self, read: Callable[[], T]) -> T:
        """What `read` gives, waiting out an outage of the database."""
        while True:
            try:
                return await to_thread.run_sync(read, limiter=self._limiter)
            except OUTAGES as error:
                logger.warning("streams of %s wait for the database: %s", self.job_id, error)
                await asyncio.sleep(_OUTAGE_SECONDS)


class Streams:
    """The feeds of this process, woken by one connection that listens."""

    name = "streams"

    def __init__(self, opened: Gauge) -> None:
        self._opened = opened
        self._listener: asyncio.Task[None] | None = None
        self._feeds: dict[str, Feed] = {}
        self._ended = False
        self._limiter = CapacityLimiter(4)  # threads, and so connections, that all reading for streams may take

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear of changes for the length of a block."""
        self._listener = asyncio.create_task(self._listen(), name=self.name)
        try:
            yield
        finally:
            self._listener.cancel()
            for feed in self._feeds.values():
                feed.close()

    def is_alive(self) -> bool:
        """False where a fault of ours has ended the listening: the service is then no longer ready."""
        return self._listener is not None and not self._listener.done()

    def end(self) -> None:
        """End all streams, and each that begins from now on: the process is going down."""
        self._ended = True
        for feed in self._feeds.values():
            feed.end()

    async def follow(self, job_id: str, position: Position | None) -> AsyncIterator[tuple[Item, Position]]:
        """As `Feed.follow`, of the job's one feed, which lives as long as anyone follows it."""
        if self._ended:
            return
        feed = self._feeds.setdefault(job_id, Feed(job_id, self._limiter))
        feed.streams += 1
        try:
            with self._opened.track_inprogress():
                await feed.open()
                async for item in feed.follow(position):
                    yield item
        finally:
            feed.streams -= 1
            if not feed.streams:
                feed.close()
                del self._feeds[job_id]

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear()
            except psycopg.OperationalError as error:
                logger.warning("streams hear nothing of the database, trying again: %s", error)
            await asyncio.sleep(_OUTAGE_SECONDS)

    async def _hear(self) -> None:
        async with await psycopg.AsyncConnection.connect(_address(), autocommit=True) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            for feed in self._feeds.values():  # they may have missed something
                feed.wake()
            async for word in connection.notifies():
                if word.payload in self._feeds:
                    self._feeds[word.payload].wake()


def _address() -> str:
    """For libpq; a connection that has silently died is found out within half a minute."""
    url = engine().url
    parts = {**url.translate_connect_args(username="user", database="dbname"), **url.query}
    return make_conninfo(**parts, **KEEPALIVES, connect_timeout="5", application_name=LISTENER)


def _since(job_id: str, position: Position) -> tuple[list[Item], bool]:
    with sessions()() as session:
        return news.since(session, job_id, position)


def _present(job_id: str) -> Position:
    with sessions()() as session:
        return news.present(session, job_id)

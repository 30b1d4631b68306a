"""A job's server-sent events, read by a thread of its own that opens the stream again where it breaks."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import Self

from cli.client import Client, Json, Params
from cli.errors import CliError, ExitCode

SILENCE_SECONDS = 45.0  # the service says something every 15 seconds
RETRY_SECONDS = 3.0  # until the service names another


@dataclass(frozen=True, slots=True)
class Sent:
    """A server-sent event; `kind` is empty for one that only sets the time to wait."""

    kind: str
    id: str
    data: Json
    retry_seconds: float | None = None


@dataclass(slots=True)
class Feed:
    """One stream for the length of a block; each event comes once, in order, however often the stream breaks."""

    client: Client
    path: str
    params: Params
    problem: str = ""  # why nothing comes just now; empty while the stream is open
    _last: str = ""
    _retry: float = RETRY_SECONDS
    _queue: SimpleQueue[Sent | CliError] = field(default_factory=SimpleQueue)
    _left: Event = field(default_factory=Event)

    def __enter__(self) -> Self:
        Thread(target=self._read_on, name="feed", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._left.set()

    def take(self, seconds: float) -> list[Sent]:
        """What has come, after waiting up to `seconds` for the first; raises CliError for what trying again cannot mend."""
        taken: list[Sent] = []
        with suppress(Empty):
            taken.append(self._checked(self._queue.get(timeout=seconds)))
            while True:
                taken.append(self._checked(self._queue.get_nowait()))
        return taken

    def _checked(self, item: Sent | CliError) -> Sent:
        if isinstance(item, CliError):
            raise item
        return item

    def _read_on(self) -> None:
        while not self._left.is_set():
            try:
                self._read()
                self.problem = "the service has closed the stream"
            except CliError as error:
                self.problem = str(error)
                if error.code is not ExitCode.UNREACHABLE:
                    self._queue.put(error)
                    return
            self._left.wait(self._retry)

    def _read(self) -> None:
        headers = {"last-event-id": self._last} if self._last else {}
        with self.client.opened(self.path, self.params, headers, SILENCE_SECONDS) as response:
            self.problem = ""
            for sent in parsed(response.iter_lines()):
                if self._left.is_set():
                    return
                self._retry = sent.retry_seconds or self._retry
                self._last = sent.id or self._last
                if sent.kind:
                    self._queue.put(sent)


def parsed(lines: Iterable[str]) -> Iterator[Sent]:
    """The events in the lines of a stream; one that the end cuts off is left out.

    >>> list(parsed([": a comment", "", "event: status", 'data: {"step": 1}', "id: 7", "", "event: cut"]))
    [Sent(kind='status', id='7', data={'step': 1}, retry_seconds=None)]
    """
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif not line and fields:
            retry = float(fields["retry"]) / 1000 if "retry" in fields else None
            yield Sent(fields.get("event", ""), fields.get("id", ""), json.loads(fields.get("data", "{}")), retry)
            fields = {}

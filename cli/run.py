"""One job as it is followed: its state, curves and events, by the service's stream."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Self

from cli.client import Client, Json
from cli.curves import Curve
from cli.errors import CliError, ExitCode
from cli.feed import Feed, Sent
from cli.series import Series

SHOWN = ("reward", "grad_norm", "completions/mean_length")
STEP_TIME = "step_time"  # seconds
POINTS = 500  # of a curve that was there before
PACE_STEPS = 20  # the time that is left is told by the pace of so many last steps
_ENDS = {"succeeded": ExitCode.DONE, "failed": ExitCode.FAILED, "cancelled": ExitCode.CANCELLED}


class Run:
    """One job as far as it has been read."""

    def __init__(self, client: Client, job: Json, feed: Feed, names: Collection[str], *, whole: bool) -> None:
        self.client = client
        self.job = job
        self.path = f"/v1/jobs/{job['id']}"
        self.series = Series({*names, STEP_TIME})
        self._feed = feed
        self._placed = False  # whether the stream has begun
        self._loaded = whole
        self._last_event = 0
        self._goal: tuple[int, int] | None = None  # the last event and step that there will be, once the job has ended

    @classmethod
    @contextmanager
    def opened(cls, client: Client, job_id: str, names: Collection[str] = SHOWN, *, whole: bool = False) -> Iterator[Self]:
        """Follow a job for the length of a block. What was there before comes as curves and events, or, where it is wanted
        `whole`, as every state, event and step that the stream has."""
        job = client.get(f"/v1/jobs/{job_id}")
        start = {"from": "beginning" if whole else "now", "kinds": ["status", "event", "metrics"]}
        with Feed(client, f"/v1/jobs/{job_id}/stream", start) as feed:
            yield cls(client, job, feed, names, whole=whole)

    @property
    def id(self) -> str:
        return str(self.job["id"])

    @property
    def problem(self) -> str:
        """Why nothing comes just now; empty while the stream is open."""
        return self._feed.problem

    @property
    def ready(self) -> bool:
        """Whether what was there before has been read."""
        return self._loaded

    @property
    def ended(self) -> ExitCode | None:
        """The exit code that goes with the job's end, once all there is of it has been read."""
        if self._goal is None or self._last_event < self._goal[0] or self.series.last_step < self._goal[1]:
            return None
        return _ENDS[self.job["status"]]

    def wait(self, seconds: float) -> list[Json]:
        """What is new, after waiting up to `seconds` for something: states, events and steps as the service tells them."""
        news = [sent.data for sent in self._feed.take(seconds) if self._take(sent)]
        try:
            if self._placed and not self._loaded:
                news += self._load()
            if self._goal is None and self.job["status"] in _ENDS:
                self._set_goal()
        except CliError as error:
            if error.code is not ExitCode.UNREACHABLE:
                raise
        return news

    def curve(self, name: str) -> Curve:
        """(step, value) of a metric that is followed, steps rising."""
        return self.series.curve(name)

    def seconds_left(self) -> float | None:
        """What the steps left will take at the present pace; None where none is left or none has been done."""
        recent = [seconds for _, seconds in self.curve(STEP_TIME)[-PACE_STEPS:]]
        left = self.job["steps"] - self.job["step"]
        if self.job["status"] != "running" or not left or not recent:
            return None
        return sum(recent) / len(recent) * float(left)

    def checkpoints(self) -> list[Json]:
        return list(self.client.get(f"{self.path}/checkpoints")["data"])

    def evaluations(self) -> list[Json]:
        return list(self.client.get(f"{self.path}/evaluations")["data"])

    def _take(self, sent: Sent) -> bool:
        """Take in what was sent; False for what is known, or will be once it is loaded."""
        if sent.kind != "status" and not self._loaded:
            return False
        if sent.kind == "metrics":
            self.series.add(sent.data["step"], sent.data["attempt"], sent.data["metrics"])
        elif sent.kind == "event":
            if sent.data["id"] <= self._last_event:
                return False
            self._last_event = sent.data["id"]
        else:
            self._placed = True
            self.job = {**self.job, **sent.data, "object": "job"}
            self.series.cut(self.job["step"])  # a job that has gone back does the steps behind it again
        return True

    def _load(self) -> list[Json]:
        """What was there when the stream began; some of it the stream tells as well, and it counts once."""
        names = ",".join(sorted(self.series.names))
        curves = self.client.get(f"{self.path}/metrics", names=names, max_points=POINTS)
        events = self._events()
        self.series.load(curves)
        self._last_event = events[-1]["id"] if events else 0
        self._loaded = True
        return events

    def _set_goal(self) -> None:
        job = self.client.get(self.path)
        events = self._events()
        self.job = job
        self._goal = events[-1]["id"] if events else self._last_event, job["step"]

    def _events(self) -> list[Json]:
        """Those behind the last one, oldest first."""
        return list(self.client.rows(f"{self.path}/events", after=self._last_event))

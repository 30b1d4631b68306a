"""What the service says about one job, gathered poll by poll."""

from cli.client import Client, Json
from cli.errors import ExitCode

SHOWN = ("reward", "grad_norm", "completions/mean_length")
STEP_TIME = "step_time"  # seconds
_PACE_STEPS = 20  # the time that is left is told by the pace of so many last steps
_ENDS = {"succeeded": ExitCode.DONE, "failed": ExitCode.FAILED, "cancelled": ExitCode.CANCELLED}


class Run:
    """One job as far as it has been read."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._path = f"/v1/jobs/{job_id}"
        self._last_event = 0
        self._next_step = 0
        self._values: dict[str, dict[int, float]] = {name: {} for name in (*SHOWN, STEP_TIME)}
        self.job = client.get(self._path)

    @property
    def id(self) -> str:
        return str(self.job["id"])

    @property
    def ended(self) -> ExitCode | None:
        """The exit code that goes with the job's end; None while it has not ended."""
        return _ENDS.get(self.job["status"])

    def poll(self) -> list[Json]:
        """Read what is new; returns the new events, oldest first.

        The job comes first: once it has ended, what is read after it is all there is.
        """
        self.job = self._client.get(self._path)
        events = self._new_events()
        self._read_curves(events)
        return events

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of a metric in SHOWN, steps rising."""
        return sorted(self._values[name].items())

    def seconds_left(self) -> float | None:
        """What the steps left will take at the present pace; None where none is left or none has been done."""
        recent = [seconds for _, seconds in self.curve(STEP_TIME)[-_PACE_STEPS:]]
        left = self.job["steps"] - self.job["step"]
        if self.job["status"] != "running" or not left or not recent:
            return None
        return sum(recent) / len(recent) * float(left)

    def checkpoints(self) -> list[Json]:
        return list(self._client.get(f"{self._path}/checkpoints")["data"])

    def evaluations(self) -> list[Json]:
        return list(self._client.get(f"{self._path}/evaluations")["data"])

    def _new_events(self) -> list[Json]:
        events: list[Json] = []
        more = True
        while more:
            page = self._client.get(f"{self._path}/events", after=self._last_event, limit=1000)
            events += page["data"]
            more = page["has_more"]
            if events:
                self._last_event = events[-1]["id"]
        return events

    def _read_curves(self, events: list[Json]) -> None:
        # A job that has gone back does those steps again; it may have done them all since the last poll.
        if self.job["step"] + 1 < self._next_step or any(event["type"] == "resumed" for event in events):
            self._next_step = 0
            self._values = {name: {} for name in self._values}
        names = ",".join(self._values)
        for name, series in self._client.get(f"{self._path}/metrics", names=names, from_step=self._next_step)["series"].items():
            new = {step: value for step, value in zip(series["step"], series["value"], strict=True) if value is not None}
            self._values[name] |= new
            self._next_step = max([self._next_step, *(step + 1 for step in series["step"])])

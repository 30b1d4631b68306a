"""What Prometheus reads: requests as they are answered, and the state of the record when it asks."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import webhooks
from api.database import across_projects
from api.models import Evaluation, Job, Outbox, Status
from api.processes import is_one_of_several
from api.workers import workers_seen

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Requests:
    """ASGI middleware: counts and times the answers by route. A stream counts until its head is sent."""

    def __init__(self, app: ASGIApp, seconds: Histogram) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")  # Starlette's, set once the request is routed
                labels = (scope["method"] if route != "unmatched" else "any", route, str(message["status"]))
                self._seconds.labels(*labels).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, send_timed)


def registry() -> CollectorRegistry:
    """Of the record, and of what this process counts, or all that share its port."""
    made = CollectorRegistry()
    made.register(Record())
    if is_one_of_several():
        MultiProcessCollector(made)  # type: ignore[no-untyped-call]  # registers itself
    return made


def request_seconds(of: CollectorRegistry) -> Histogram:
    about = "From a request's arrival to the head of its answer"
    labels = ["method", "route", "status"]
    return Histogram("mhpo_http_request_seconds", about, labels, buckets=_BUCKETS, registry=_own(of))


def open_streams(of: CollectorRegistry) -> Gauge:
    return Gauge("mhpo_streams", "Open streams", registry=_own(of), multiprocess_mode="livesum")


def _own(of: CollectorRegistry) -> CollectorRegistry | None:
    """Where a counter of this process is registered: nowhere where the processes' files are added up."""
    return None if is_one_of_several() else of


class Record(Collector):
    """Counts rows of the record, of all projects, when it is asked."""

    def collect(self) -> Iterator[Metric]:
        with across_projects() as session:
            for name, table in (("jobs", Job), ("evaluations", Evaluation)):
                family = GaugeMetricFamily(f"mhpo_{name}", f"{name.capitalize()} by status", labels=["status"])
                rows = session.execute(select(table.status, func.count()).group_by(table.status))
                counted = {status: count for status, count in rows}  # noqa: C416  # rows, not pairs
                for status in dict.fromkeys([*Status, *counted]):  # those too that only a newer worker knows
                    family.add_metric([str(status)], counted.get(status, 0))
                yield family
            oldest = select(func.extract("epoch", func.now() - func.min(Job.queued_at))).where(Job.status == Status.QUEUED)
            single = {
                "mhpo_oldest_queued_job_seconds": ("How long the job waits that has waited longest", oldest),
                "mhpo_outbox": ("Hints that are not published yet", select(func.count()).select_from(Outbox)),
                "mhpo_workers": ("Workers that were seen in the last minute", workers_seen()),
            }
            for name, (about, query) in single.items():
                yield GaugeMetricFamily(name, about, value=float(session.scalar(query) or 0))
            yield GaugeMetricFamily("mhpo_webhooks_waiting", "Webhook deliveries still to be made", webhooks.waiting(session))

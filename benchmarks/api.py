"""Requests a second and latencies of the API over a large record, each beside /healthz in the same run.

    python -m benchmarks.api [--jobs 10000] [--points 10000000] [--names 50] [--connections 4] [--seconds 8] [--processes 2]

The record: `--jobs` ended jobs, and `--points` values of metrics, a million of them in one long run, the others in runs of
20,000 steps. Real PostgreSQL and Redis, the API processes and a client process, all on this machine's cores.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import httpx
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from benchmarks.serving import own_record, serving

STEPS = 20_000
LONG = "job-" + "l" * 24
WIDE = "job-" + "w" * 24

_MOST_LOOKS = 30  # a second each, at whether the streams have caught up

Ask = Callable[[ClientSession], Any]  # the request, to be entered


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured of one kind of request; latencies in seconds."""

    name: str
    latencies: list[float]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """Milliseconds."""
        return 1000 * quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


def fill(jobs: int, points: int, names: int, spec: dict[str, Any]) -> None:
    """Rows by SQL, as ingest would have written them: the steps, and the segments that curves are drawn from."""
    from sqlalchemy import text

    from api.database import engine, sessions
    from api.rollup import roll_up

    made = (
        "INSERT INTO jobs (id, name, spec, resolved_spec, steps, step, status, created_at) "
        "SELECT :id, 'filled', :spec, :spec, :steps, :steps, 'succeeded', now() - n * interval '1 minute' "
        "FROM generate_series(1, :count) n"
    )
    runs = [(LONG, 1_000_000, 1), (WIDE, STEPS, names)]
    runs += [(_id(n), STEPS, names) for n in range(max(0, points - 2_000_000) // (STEPS * names))]
    with engine().begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0"))
        other = made.replace(":id", "'job-' || lpad(translate(n::text, '0189', 'zxyv'), 24, 'b')")
        connection.execute(text(other), {"spec": json.dumps(spec), "steps": 100, "count": jobs})
        for job_id, steps, _ in runs:
            connection.execute(text(made), {"id": job_id, "spec": json.dumps(spec), "steps": steps, "count": 1})
    for number, (job_id, steps, width) in enumerate(runs):
        with sessions().begin() as session:
            session.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0"))
            session.execute(text(_steps_of(width)), {"job_id": job_id, "steps": steps})
            roll_up(session, job_id, 0, steps, appended=True)
        print(f"\rfilled {number + 1} of {len(runs)} runs", end="", flush=True, file=sys.stderr)
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0; SET transaction_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
    print(file=sys.stderr)


def _id(number: int) -> str:
    """An id with the letters of ours."""
    return "job-" + str(number).translate(str.maketrans("0189", "zxyv")).rjust(24, "a")


def _steps_of(width: int) -> str:
    pairs = [f"'metric/{n}', random()" for n in range(width)]
    halves = [half for half in (pairs[::2], pairs[1::2]) if half]  # a call of jsonb_build_object takes 100 arguments
    objects = " || ".join(f"jsonb_build_object({', '.join(half)})" for half in halves)
    return (
        "INSERT INTO step_metrics (job_id, attempt, step, metrics, reported_at) "
        f"SELECT :job_id, 1, n, {objects}, now() + n * interval '1 second' FROM generate_series(1, :steps) n"
    )


async def load(url: str, name: str, ask_once: Ask, connections: int, seconds: float) -> Load:
    """Ask on so many connections, each at once when it was answered."""
    latencies: list[float] = []

    async def answered(client: ClientSession) -> None:
        async with ask_once(client) as answer:
            answer.raise_for_status()
            await answer.read()

    async def keep_asking(client: ClientSession, until: float) -> None:
        while (start := time.perf_counter()) < until:
            await answered(client)
            latencies.append(time.perf_counter() - start)

    async with ClientSession(url, timeout=ClientTimeout(60), connector=TCPConnector(limit=connections)) as client:
        await asyncio.gather(*(answered(client) for _ in range(connections)))
        start = time.perf_counter()
        await asyncio.gather(*(keep_asking(client, start + seconds) for _ in range(connections)))
        return Load(name, latencies, time.perf_counter() - start)


async def measure(url: str, spec: dict[str, Any], names: int, connections: int, seconds: float) -> list[Load]:
    """One kind of request after the other; metrics on one connection, as a page asks for them."""
    random = Random(0)
    page = ",".join(f"metric/{n}" for n in range(min(12, names)))
    first = await httpx.AsyncClient(base_url=url, trust_env=False).get("/v1/jobs", params={"limit": 100})
    ids = [job["id"] for job in first.json()["data"]]

    def curves(job_id: str, metrics: str) -> Ask:
        params: dict[str, str | int] = {"names": metrics, "max_points": 500}
        return lambda client: client.get(f"/v1/jobs/{job_id}/metrics", params=params)

    kinds: list[tuple[str, Ask, int]] = [
        ("GET /healthz", lambda client: client.get("/healthz"), connections),
        ("GET a job", lambda client: client.get(f"/v1/jobs/{random.choice(ids)}"), connections),
        ("GET 20 jobs", lambda client: client.get("/v1/jobs"), connections),
        ("POST a job", lambda client: client.post("/v1/jobs", json=spec), connections),
        ("metrics: 1 name, 1,000,000 steps", curves(LONG, "metric/0"), 1),
        (f"metrics: {min(12, names)} of {names} names, 20,000 steps", curves(WIDE, page), 1),
    ]
    return [await load(url, name, ask_once, at_once, seconds) for name, ask_once, at_once in kinds]


async def burst(url: str, spec: dict[str, Any], count: int) -> float:
    """Seconds until `count` creates, all sent at once, are answered and queued, and stand in the queue by their age."""
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as client:
        start = time.perf_counter()
        answers = await asyncio.gather(*(client.post("/v1/jobs", json=spec) for _ in range(count)))
        seconds = time.perf_counter() - start
    made = [answer.raise_for_status().json() for answer in answers]
    by_age = [job["id"] for job in sorted(made, key=lambda job: (job["created_at"], job["id"]))]
    queued = set(by_age)
    if [job_id for job_id in _queue() if job_id in queued] != by_age:
        sys.exit("the queue is not in the order in which the jobs were made")
    return seconds


def _queue() -> list[str]:
    from sqlalchemy import select

    from api.database import transaction
    from api.models import Job, Status
    from api.slots import turn

    with transaction() as session:
        return list(session.scalars(select(Job.id).where(Job.status == Status.QUEUED).order_by(*turn())))


@dataclass(frozen=True, slots=True)
class Streamed:
    """What open streams cost the database while nothing happens, and how soon all of them hear of a change."""

    count: int
    sessions: tuple[int, int]  # of the database's, without and with the streams
    transactions: tuple[float, float]  # a second
    heard_seconds: float


async def streams(url: str, spec: dict[str, Any], count: int, seconds: float) -> Streamed:
    """Open `count` streams of one job, look at the database's own counters, cancel the job, and wait until all have heard."""
    limits = httpx.Limits(max_connections=count + 1, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as client:
        job_id = (await client.post("/v1/jobs", json=spec)).raise_for_status().json()["id"]
        all_open = asyncio.Barrier(count + 1)

        async def listen() -> None:
            async with client.stream("GET", f"/v1/jobs/{job_id}/stream", params={"kinds": "status"}) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        if '"cancelled"' in line:
                            return
                        await all_open.wait()

        without = await _database_load(seconds)
        listening = [asyncio.create_task(listen()) for _ in range(count)]
        await all_open.wait()
        for _ in range(_MOST_LOOKS):  # a stream's first item comes before all that it has to catch up with
            if (await _database_load(1.0))[1] < 2 * without[1]:
                break
        beside = await _database_load(seconds)
        start = time.perf_counter()
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await asyncio.gather(*listening)
        heard = time.perf_counter() - start
    return Streamed(count, (without[0], beside[0]), (without[1], beside[1]), heard)


async def _database_load(seconds: float) -> tuple[int, float]:
    """(sessions, transactions a second) of the database over a while, this process' own aside."""
    from sqlalchemy import text

    from api.database import engine

    done = text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
    clients = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        before, start = connection.scalar(done) or 0, time.perf_counter()
        await asyncio.sleep(seconds)
        after = connection.scalar(done) or 0
        return connection.scalar(clients) or 0, (after - before) / (time.perf_counter() - start)


def report(loads: list[Load], burst_seconds: float, streamed: Streamed) -> None:
    """The table."""
    floor = loads[0].rate
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    print(f"{'':46}{'requests/s':>11}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'of /healthz':>13}")
    for each in loads:
        p50, p95, p99 = (each.percentile(percent) for percent in (50, 95, 99))
        print(f"{each.name:46}{each.rate:11.0f}{p50:9.1f}{p95:9.1f}{p99:9.1f}{each.rate / floor:13.1%}")
    print(f"500 creates at once: {burst_seconds:.1f} s, {500 / burst_seconds:.0f}/s, all queued, in the order of their age")
    (before, beside), (idle, open_) = streamed.sessions, streamed.transactions
    print(f"{streamed.count} open streams: {beside} database sessions for {before}, {open_:.1f} transactions/s for {idle:.1f};")
    print(f"all of them hear of a change within {1000 * streamed.heard_seconds:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--names", type=int, default=50)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mhpo-api-") as name:
        folder = Path(name)
        with own_record(
            folder,
            MHPO_DATA_DIR=str(folder / "data"),
            MHPO_ALLOWED_ROOTS=name,
            MHPO_API_PROCESSES=str(arguments.processes),
        ) as url:
            spec = _spec(folder)
            _migrate_and_fill(arguments, spec)
            with serving(folder, url):
                loads = asyncio.run(measure(url, spec, arguments.names, arguments.connections, arguments.seconds))
                burst_seconds = asyncio.run(burst(url, spec, 500))
                report(loads, burst_seconds, asyncio.run(streams(url, spec, 500, arguments.seconds)))


def _migrate_and_fill(arguments: argparse.Namespace, spec: dict[str, Any]) -> None:
    from migrations import schema
    from trainer.config import JobSpec

    schema.upgrade()
    fill(arguments.jobs, arguments.points, arguments.names, JobSpec.parse(spec).model_dump(mode="json"))


def _spec(folder: Path) -> dict[str, Any]:
    """A job whose model and data set are there."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "sums.jsonl").write_text("".join(f'{{"problem": "{n}+1=", "answer": "{n + 1}"}}\n' for n in range(1000)))
    return {"steps": 100, "model": {"path": str(folder / "model")}, "dataset": {"path": str(folder / "sums.jsonl")}}


if __name__ == "__main__":
    main()

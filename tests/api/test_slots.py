"""GPUs leased with jobs: as many as are asked for, by one job at a time, and free again however its lease ends."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from api.database import engine, transaction
from api.models import Evaluation, Job, Json, Phase, Scope, Status
from api.reason import Fault, Reason
from api.record import (
    Claim,
    LeaseLostError,
    claim_next,
    finish,
    heartbeat,
    note_lacking,
    reap,
    request_cancel,
    request_pause,
    requeue,
    set_phase,
)
from api.slots import Place, offer
from api.workers import worker_seen
from tests.api.conftest import expire_leases, rows
from tests.api.locked import new_key
from tests.conftest import ApiServer

NewJob = Callable[..., str]
BOX = Place("box", 2)
STOPPED = Reason("worker_stopped", Fault.INFRA, "The worker was shut down.", retryable=True)


def take(place: Place = BOX, owner: str = "worker-1") -> Claim | None:
    with transaction() as session:
        return claim_next(session, Job, owner, place)


def taken(place: Place = BOX) -> Claim:
    claim = take(place)
    assert claim is not None
    return claim


def leased() -> dict[tuple[str, int], str]:
    """(host, index) -> the running job whose lease holds it"""
    query = "SELECT host, index, id FROM gpu_slots JOIN jobs USING (lease_token) WHERE status = 'running'"
    held = {(host, index): job_id for host, index, job_id in rows(query)}
    assert rows("SELECT count(*) FROM gpu_slots WHERE lease_token IS NOT NULL") == [(len(held),)], "none of a lease that ended"
    return held


def seen(place: Place, queue: str = "gpu") -> None:
    """As a worker there says of itself."""
    with transaction() as session:
        worker_seen(session, f"worker@{place.host}", place.host, 1, queue)
        offer(session, place)


def test_a_job_gets_as_many_gpus_as_it_asks_for(new_job: NewJob) -> None:
    one, two = new_job(), new_job(resources={"gpus": 2})
    claim = taken()
    assert (claim.id, claim.devices, leased()) == (one, (0,), {("box", 0): one})
    assert rows("SELECT lease_host, lease_devices FROM jobs WHERE id = :id", id=one) == [("box", [0])]
    assert take() is None
    with transaction() as session:
        assert finish(session, claim, Status.SUCCEEDED, None)
    claim = taken()
    assert (claim.id, claim.devices, leased()) == (two, (0, 1), {("box", 0): two, ("box", 1): two})
    told = "SELECT data -> 'host', data -> 'devices' FROM events WHERE job_id = :id AND data ->> 'status' = 'running'"
    assert rows(told, id=two) == [("box", [0, 1])]


def _finish(claim: Claim) -> None:
    with transaction() as session:
        assert finish(session, claim, Status.SUCCEEDED, None)


def _give_back(claim: Claim) -> None:
    with transaction() as session:
        assert requeue(session, claim, STOPPED, crashed=False) is Status.QUEUED


def _pause(claim: Claim) -> None:
    with transaction() as session:
        request_pause(session, claim.id)
        assert requeue(session, claim, STOPPED, crashed=False) is Status.PAUSED


def _cancel(claim: Claim) -> None:
    with transaction() as session:
        request_cancel(session, claim.id)
        assert requeue(session, claim, STOPPED, crashed=False) is Status.CANCELLED


def _expire(claim: Claim) -> None:
    expire_leases()
    with transaction() as session:
        reap(session, Job)


def _delete(claim: Claim) -> None:
    with engine().begin() as connection:
        connection.execute(text("DELETE FROM jobs"))


@pytest.mark.parametrize("end", [_finish, _give_back, _pause, _cancel, _expire, _delete])
def test_gpus_are_free_however_the_lease_ends(new_job: NewJob, end: Callable[[Claim], None]) -> None:
    new_job(resources={"gpus": 2})
    claim = taken()
    assert len(leased()) == 2
    end(claim)
    assert leased() == {}
    assert rows("SELECT count(*) FROM gpu_slots WHERE leased_at IS NOT NULL") == [(0,)]
    assert rows("SELECT count(*) FROM jobs WHERE lease_host IS NOT NULL OR lease_devices IS NOT NULL") == [(0,)]


def test_who_lost_its_lease_frees_no_gpu_of_the_next(new_job: NewJob) -> None:
    new_job(resources={"gpus": 2})
    stale = taken()
    _expire(stale)
    with engine().begin() as connection:
        connection.execute(text("UPDATE jobs SET not_before = NULL"))
    holder = taken(Place("box", 2))
    with transaction() as session:
        assert finish(session, stale, Status.SUCCEEDED, None) is False
        assert requeue(session, stale, STOPPED, crashed=True) is None
        with pytest.raises(LeaseLostError):
            set_phase(session, stale, Phase.ROLLOUT)
    assert leased() == {("box", 0): holder.id, ("box", 1): holder.id}
    with transaction() as session:
        assert heartbeat(session, holder)


def test_workers_that_look_at_once_never_share_a_gpu(new_job: NewJob) -> None:
    place, barrier = Place("box", 5), Barrier(6)
    for gpus in (1, 2, 1, 2, 1, 2):
        new_job(resources={"gpus": gpus})

    def look(number: int) -> Claim | None:
        barrier.wait()
        return take(place, f"worker-{number}")

    with ThreadPoolExecutor(6) as threads:
        claims = [claim for claim in threads.map(look, range(6)) if claim]
    claims += iter(lambda: take(place), None)
    devices = [device for claim in claims for device in claim.devices]
    assert sorted(devices) == [0, 1, 2, 3, 4], "all of them are at work, each for one job"
    assert len(leased()) == 5


def test_jobs_that_need_less_do_not_pass_one_that_waits_for_gpus(new_job: NewJob) -> None:
    running = new_job()
    assert taken().id == running
    wide, narrow, on_cpu = new_job(resources={"gpus": 2}), new_job(), new_job(resources={"device": "cpu"})
    claim = taken()
    assert (claim.id, claim.devices) == (on_cpu, ()), "it takes nothing that the wide job waits for"
    assert take() is None
    assert taken(Place("small", 1)).id == narrow, "a machine that can never run the wide job does not wait for it"
    _finish_of(running)
    assert taken().id == wide


def _finish_of(job_id: str) -> None:
    with transaction() as session:
        request_cancel(session, job_id)
    _expire_of(job_id)


def _expire_of(job_id: str) -> None:
    with engine().begin() as connection:
        connection.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE id = :id"), {"id": job_id})
    with transaction() as session:
        assert reap(session, Job)[Status.CANCELLED] == [job_id]


def test_without_a_gpu_auto_goes_to_the_cpu_and_cuda_waits(new_job: NewJob) -> None:
    cuda, auto = new_job(resources={"device": "cuda"}), new_job()
    claim = taken(Place("laptop", 0))
    assert (claim.id, claim.devices) == (auto, ())
    assert take(Place("laptop", 0)) is None
    assert taken().id == cuda


def test_a_job_that_no_machine_can_run_says_what_it_waits_for(new_job: NewJob) -> None:
    reason = "SELECT status, status_reason ->> 'message', status_reason ->> 'hint' LIKE '%clone%' FROM jobs WHERE id = :id"
    job_id = new_job(resources={"device": "cuda", "gpus": 4})
    message = "It waits for a machine with 4 GPUs and a worker; there is none with a GPU."
    assert rows(reason, id=job_id) == [("queued", message, True)]
    seen(BOX)
    seen(Place("scorer", 8), "eval")
    with transaction() as session:
        note_lacking(session)
    assert rows(reason, id=job_id)[0][1].endswith("; the largest, box, has 2.")
    assert take() is None
    seen(Place("rack", 4))
    with transaction() as session:
        note_lacking(session)
    assert rows(reason, id=job_id) == [("queued", None, None)]
    assert taken(Place("rack", 4)).devices == (0, 1, 2, 3)


def test_a_gpu_that_was_taken_out_is_no_longer_leased(new_job: NewJob) -> None:
    new_job()
    claim = taken()
    with transaction() as session:
        offer(session, Place("box", 0))
    assert rows("SELECT index FROM gpu_slots") == [(0,)], "one that is held stays until it is free"
    _finish(claim)
    with transaction() as session:
        offer(session, Place("box", 1))
    assert rows("SELECT index FROM gpu_slots") == [(0,)]


def test_an_evaluation_takes_no_gpu(new_job: NewJob, spec: Json) -> None:
    new_job(evaluation={"benchmarks": [spec["dataset"]["path"]]})
    with transaction() as session:
        assert claim_next(session, Evaluation, "evaluator-1", BOX) is not None
    assert leased() == {}
    assert rows("SELECT lease_host FROM evaluations") == [("box",)]


def test_the_holder_of_each_gpu_is_told_to_admins(locked: ApiServer, new_job: NewJob, spec: Json) -> None:
    callers = ((Scope.WRITE, "default"), (Scope.ADMIN, "another"))
    keys = {scope: {"authorization": f"Bearer {new_key(project, scope)}"} for scope, project in callers}
    seen(BOX)
    wanted: Json = {**spec, "resources": {"device": "cuda", "gpus": 2}}
    with locked.client() as client:
        assert _plan(client, keys[Scope.WRITE], wanted)["waits_for"] is None
        job_id = new_job()
        claim = taken()
        answers = {scope: client.get("/v1/slots", headers=key) for scope, key in keys.items()}
        assert answers[Scope.WRITE].status_code == 403
        told = [(slot["host"], slot["index"], slot["job_id"], slot["worker"]) for slot in answers[Scope.ADMIN].json()["data"]]
        assert told == [("box", 0, job_id, "worker-1"), ("box", 1, None, None)], "whatever project the job is of"
        job = client.get(f"/v1/jobs/{job_id}", headers=keys[Scope.WRITE]).json()
        assert (job["host"], job["devices"]) == ("box", list(claim.devices))
        assert (
            _plan(client, keys[Scope.WRITE], wanted)["waits_for"] == "It waits for 2 GPUs of one machine: box has 1 of 2 free."
        )
        more = {**spec, "resources": {"device": "cuda", "gpus": 3}}
        posted = client.post("/v1/jobs", json=more, headers=keys[Scope.WRITE]).json()
        assert posted["status_reason"]["code"] == "no_such_machine"
        assert _plan(client, keys[Scope.WRITE], more)["waits_for"] == posted["status_reason"]["message"]


def _plan(client: httpx.Client, key: dict[str, str], spec: Json) -> Any:
    return client.post("/v1/jobs/plan", json=spec, headers=key).raise_for_status().json()

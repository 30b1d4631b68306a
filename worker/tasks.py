"""The Celery tasks. A message is a hint to look; what runs is what the record lets this worker claim."""

from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown

from api.background import Repeated
from api.database import engine
from api.models import Evaluation, Job, Task
from api.queue import app
from worker.presence import Presence
from worker.turn import TABLES, poll, take_turn

app.steps["worker"].add(Presence)

_pollers: list[Repeated] = []  # of this pool process: one once it has started


def _start(sender: str, **_: Any) -> None:
    """In a new pool process; `sender` is the worker's name."""
    engine().dispose(close=False)  # those connections that the fork copied belong to the main process
    served = [table for queue, table in TABLES.items() if queue in app.amqp.queues.consume_from]
    _pollers.append(poll(served, sender))
    _pollers[0].start()


def _stop(**_: Any) -> None:
    """Before a pool process exits: what its poller runs is told to stop by the drain flag, saves and is given back."""
    for poller in _pollers:
        poller.stop()


worker_process_init.connect(_start)
worker_process_shutdown.connect(_stop)


@app.task(name=Task.RUN_JOB.value, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def run_job(self: Any, _job_id: str) -> None:
    """Train the job whose turn it is; a duplicate or late hint finds none."""
    take_turn(Job, self.request.hostname)


@app.task(name=Task.RUN_EVALUATION.value, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def run_evaluation(self: Any, _evaluation_id: str) -> None:
    """Score the model of the evaluation whose turn it is; a duplicate or late hint finds none."""
    take_turn(Evaluation, self.request.hostname)

"""The Celery tasks. A message is a hint to look; what runs is what the record lets this worker claim."""

import logging
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown

from api.background import Repeated
from api.database import OUTAGES, engine
from api.models import Evaluation, Job, Task
from api.queue import app
from worker.presence import leave, presence
from worker.turn import TABLES, poll, take_turns

logger = logging.getLogger(__name__)

_threads: dict[str, list[Repeated]] = {}  # of this pool process, by the worker's name, once it has started


def _start(sender: str, **_: Any) -> None:
    """In a new pool process; `sender` is the worker's name."""
    engine().dispose(close=False)  # those connections that the fork copied belong to the main process
    queues = list(app.amqp.queues.consume_from)
    served = [table for queue, table in TABLES.items() if queue in queues]
    _threads[sender] = [presence(sender, queues), poll(served, sender)]
    for thread in _threads[sender]:
        thread.start()


def _stop(**_: Any) -> None:
    """Before a pool process exits: what its poller runs is told to stop by the drain flag, saves and is given back."""
    for name, threads in _threads.items():
        for thread in reversed(threads):  # it is present until its last job is given back
            thread.stop()
        try:
            leave(name)
        except OUTAGES as error:
            logger.warning("the record does not answer: %s", error)


worker_process_init.connect(_start)
worker_process_shutdown.connect(_stop)


@app.task(name=Task.RUN_JOB.value, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def run_job(self: Any, _job_id: str) -> None:
    """Train the jobs whose turn it is; a duplicate or late hint finds none."""
    take_turns(Job, self.request.hostname)


@app.task(name=Task.RUN_EVALUATION.value, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def run_evaluation(self: Any, _evaluation_id: str) -> None:
    """Score the models of the evaluations whose turn it is; a duplicate or late hint finds none."""
    take_turns(Evaluation, self.request.hostname)

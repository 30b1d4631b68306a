"""What Celery is told."""

import os
import subprocess
import sys
from collections.abc import Callable

from redis import Redis

from api import outbox
from api.models import Task
from api.queue import waiting
from api.settings import Settings


def test_a_shutdown_leaves_a_trainer_the_time_that_it_is_given_to_stop() -> None:
    script = "from api.queue import app; print(app.conf.worker_soft_shutdown_timeout)"
    environment = {**os.environ, "MHPO_CANCEL_GRACE_SECONDS": "300"}
    printed = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True).stdout
    assert float(printed) > 300


def test_a_batch_of_hints_takes_one_connection(record: Settings, new_job: Callable[..., str]) -> None:
    jobs = [new_job() for _ in range(20)]
    with Redis.from_url(record.redis_url) as broker:

        def connections() -> int:
            return int(broker.info("stats")["total_connections_received"])

        before = connections()
        assert outbox.drain() == len(jobs)
        assert connections() - before < 5
    assert waiting(Task.RUN_JOB) == len(jobs)

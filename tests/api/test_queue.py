"""What Celery is told."""

import os
import subprocess
import sys


def test_a_shutdown_leaves_a_trainer_the_time_that_it_is_given_to_stop() -> None:
    script = "from api.queue import app; print(app.conf.worker_soft_shutdown_timeout)"
    environment = {**os.environ, "MHPO_CANCEL_GRACE_SECONDS": "300"}
    printed = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True).stdout
    assert float(printed) > 300

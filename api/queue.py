"""The Celery app and its hints. The record decides what runs; a message only says where to look."""

from collections.abc import Iterable
from typing import Any

from celery import Celery

from api.models import Task
from api.settings import settings

QUEUES = {Task.RUN_JOB: "gpu", Task.RUN_EVALUATION: "eval"}

# Seconds after which a publisher gives up on a broker that does not answer.
_IMPATIENT = {"socket_connect_timeout": 1, "socket_timeout": 2, "max_retries": 0, "retry_on_timeout": False}


def _configuration() -> dict[str, Any]:
    return {
        "broker_url": settings().redis_url,
        # Acked when received: a job outlives any visibility timeout, and the lease, not the message, says who runs it.
        "task_acks_late": False,
        "task_ignore_result": True,
        "task_track_started": False,
        # A busy worker holds no second job's message back from an idle one.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_concurrency": 1,
        "worker_pool": "prefork",
        # On SIGQUIT; longer than it takes to stop a trainer and to write the record.
        "worker_soft_shutdown_timeout": settings().cancel_grace_seconds + 30,
        "worker_enable_soft_shutdown_on_idle": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {"visibility_timeout": 3600, "socket_keepalive": True, "health_check_interval": 25},
        "task_default_queue": QUEUES[Task.RUN_JOB],
        "task_routes": {task.value: {"queue": queue} for task, queue in QUEUES.items()},
        "task_publish_retry": False,  # the outbox publishes again
    }


app = Celery("mhpo")
app.add_defaults(_configuration)  # called when first used, so that importing this reads no environment


def publish(task: Task, key: str) -> None:
    """Send the hint `task(key)`; raises kombu's OperationalError within seconds if Redis is out of reach."""
    publish_all([(task, key)])


def publish_all(hints: Iterable[tuple[Task, str]]) -> None:
    """The same of many, over one connection."""
    with app.connection_for_write(transport_options=_IMPATIENT) as connection, app.amqp.Producer(connection) as producer:
        for task, key in hints:
            app.send_task(task.value, args=[key], queue=QUEUES[task], producer=producer, retry=False)


def waiting(task: Task) -> int:
    """How many hints for `task` no worker has taken yet; raises kombu's OperationalError as `publish`."""
    with app.connection_for_read(transport_options=_IMPATIENT) as connection:
        return int(connection.default_channel.queue_declare(queue=QUEUES[task]).message_count)

"""Says in the record that this worker is there, which queues it serves, and which GPUs its machine has to lease.

From a thread of the pool process, as the look for work (worker/turn.py): the timers of Celery's main process stand still
while it looks for a broker that is gone, and who reads the record would take the worker for dead.
"""

import os
from collections.abc import Sequence

from sqlalchemy import delete

from api import slots
from api.background import Repeated
from api.database import transaction
from api.models import Worker
from api.settings import settings
from api.workers import worker_seen
from worker.devices import VISIBLE, place


def presence(name: str, queues: Sequence[str]) -> Repeated:
    """Tells of the worker `name`, whose main process is this one's parent, every heartbeat; not yet started."""
    main = os.getppid()

    def tell() -> None:
        here = place(os.environ.get(VISIBLE))
        with transaction() as session:
            worker_seen(session, name, here.host, main, ",".join(sorted(queues)))
            slots.offer(session, here)

    return Repeated("presence", settings().heartbeat_seconds, tell)


def leave(name: str) -> None:
    """The worker is gone."""
    with transaction() as session:
        session.execute(delete(Worker).where(Worker.name == name, Worker.pid == os.getppid()))

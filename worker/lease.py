"""Keeps a claim alive while its process runs, and tells what the heartbeat found."""

import logging

from sqlalchemy import select

from api.database import OUTAGES, transaction
from api.record import Claim, Lease, LeaseLostError, heartbeat
from api.settings import settings
from worker.fence import Fence, now

logger = logging.getLogger(__name__)

GLANCE_SECONDS = 1.0  # between two looks at the cancel flag, so that a person who cancels does not wait for a heartbeat


class Keeper:
    """Heartbeats on schedule. An outage is waited out as long as the lease lasts; then the fence falls."""

    def __init__(self, claim: Claim, fence: Fence) -> None:
        self._claim = claim
        self._fence = fence
        self._next_beat = 0.0
        self._next_glance = 0.0
        self.cancel_requested = False

    def keep(self) -> None:
        """Heartbeat if one is due; to be called at least once a second. Raises LeaseLostError."""
        if self._fence.fell:
            raise LeaseLostError(self._claim.id)
        try:
            if now() >= self._next_beat or (now() >= self._next_glance and self._flag_is_new()):
                self._beat()
        except OUTAGES as error:
            logger.warning("%s: no heartbeat, the database does not answer: %s", self._claim.id, error)
            self._next_beat = self._next_glance = now() + GLANCE_SECONDS

    def _beat(self) -> None:
        sent = now()  # before the database's clock sets the end of the lease, so the fence is never later than that end
        with transaction() as session:
            lease = heartbeat(session, self._claim)
        if lease is Lease.LOST:
            raise LeaseLostError(self._claim.id)
        self._fence.extend(sent + settings().lease_seconds)
        self.cancel_requested = lease is Lease.CANCEL_REQUESTED
        self._next_beat = sent + settings().heartbeat_seconds

    def _flag_is_new(self) -> bool:
        self._next_glance = now() + GLANCE_SECONDS
        table = self._claim.table
        with transaction() as session:
            flag = session.scalar(select(table.cancel_requested).where(table.id == self._claim.id))
        return bool(flag) and not self.cancel_requested

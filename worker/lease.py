"""Keeps a claim alive while its process runs, and tells what the heartbeat found."""

import logging

from sqlalchemy import or_, select

from api.database import OUTAGES, transaction
from api.record import Claim, Lease, LeaseLostError, heartbeat
from api.settings import settings
from worker.fence import Fence, now

logger = logging.getLogger(__name__)

GLANCE_SECONDS = 1.0  # between two looks at the flags, so that a person who cancels or pauses waits for no heartbeat


class Keeper:
    """Heartbeats on schedule. An outage is waited out as long as the lease lasts; then the fence falls."""

    def __init__(self, claim: Claim, fence: Fence) -> None:
        self._claim = claim
        self._fence = fence
        self._next_beat = 0.0
        self._next_glance = 0.0
        self.stop_requested = False  # to cancel or to pause; the record knows which

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
        self.stop_requested = lease is not Lease.HELD
        self._next_beat = sent + settings().heartbeat_seconds

    def _flag_is_new(self) -> bool:
        self._next_glance = now() + GLANCE_SECONDS
        table = self._claim.table
        with transaction() as session:
            asked = select(or_(table.cancel_requested, table.pause_requested)).where(table.id == self._claim.id)
            flag = session.scalar(asked)
        return bool(flag) and not self.stop_requested

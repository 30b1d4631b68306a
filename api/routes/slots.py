"""The GPUs of all machines; the scope admin reads it, of whatever project (`api/guard.py`)."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from api import slots
from api.database import across_projects
from api.guard import SLOTS_PATH
from api.schemas import Listing, View

router = APIRouter(tags=["health"])


class SlotView(View):
    """A GPU of a machine, and the job that holds it."""

    object: Literal["slot"] = "slot"
    host: str
    index: int
    job_id: Annotated[str | None, Field(description="null where it is free")]
    project: str | None
    worker: str | None
    leased_at: datetime | None
    lease_expires_at: datetime | None


@router.get(SLOTS_PATH)
def list_slots() -> Listing[SlotView]:
    """Each GPU of each machine, by host and index, and the job that holds it, of all projects."""
    with across_projects() as session:
        return Listing(data=[SlotView.model_validate(row) for row in slots.slots(session)])

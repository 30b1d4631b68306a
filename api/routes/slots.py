"""The GPUs of all machines; the scope admin reads it, of whatever project (`api/guard.py`)."""

from fastapi import APIRouter

from api import slots
from api.database import across_projects
from api.guard import SLOTS_PATH
from api.schemas import Listing, SlotView

router = APIRouter(tags=["health"])


@router.get(SLOTS_PATH)
def list_slots() -> Listing[SlotView]:
    """Each GPU of each machine, by host and index, and the job that holds it, of all projects."""
    with across_projects() as session:
        return Listing(data=[SlotView.model_validate(row) for row in slots.slots(session)])

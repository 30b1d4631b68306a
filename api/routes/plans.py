"""What a job would be, without making it."""

from typing import Annotated

from fastapi import APIRouter, Query

from api import eta, slots
from api.body import JsonBody
from api.dependencies import SessionDep
from api.fit import fit
from api.openapi import DATASET_BODY, JOB_BODY
from api.preflight import plan
from api.preview import PreviewView, preview
from api.schemas import PlanView
from trainer.config import Dataset, JobSpec
from trainer.strict import SpecError

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.post("/datasets/preview", openapi_extra={"requestBody": DATASET_BODY})
def preview_dataset(body: JsonBody, session: SessionDep, rows: Annotated[int, Query(ge=1, le=20)] = 3) -> PreviewView:
    """The first rows of a data set and their prompts; the body is the `dataset` of a job spec."""
    try:
        dataset = Dataset.parse(body)
    except SpecError as error:
        raise SpecError(f"dataset.{error.param}" if error.param else "dataset", error.message) from error
    return preview(session, dataset, rows)


@router.post("/jobs/plan", openapi_extra={"requestBody": JOB_BODY})
def plan_job(body: JsonBody, session: SessionDep) -> PlanView:
    """Check a spec and what it points to as `POST /v1/jobs` does; tells what it needs and how long it may take."""
    planned = plan(session, JobSpec.parse(body))
    spec = planned.resolved
    return PlanView.model_validate(
        {
            "spec": planned.spec.model_dump(mode="json"),
            "steps": spec.steps,
            "completions": spec.steps * spec.rollout.prompts_per_step * spec.rollout.group_size,
            "fit": fit(spec),
            "waits_for": slots.waits_for(session, spec.resources.device, spec.resources.gpus),
            "eta_seconds": eta.seconds(session, spec),
        }
    )

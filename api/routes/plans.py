"""What a job would be, without making it."""

from fastapi import APIRouter

from api import eta, slots
from api.body import JsonBody
from api.dependencies import SessionDep
from api.fit import fit
from api.openapi import JOB_BODY
from api.preflight import plan
from api.schemas import PlanView
from trainer.config import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("/plan", openapi_extra={"requestBody": JOB_BODY})
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

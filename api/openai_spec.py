"""A fine-tuning job in OpenAI's form, as a job spec."""

import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from api.lineage import merge
from api.models import Checkpoint, Json, is_id
from api.openai_dataset import Problems, problems_of
from api.openai_graders import answer_column, checked
from api.record_read import find_job
from api.settings import settings
from trainer.config import JobSpec, Optimizer, Rollout
from trainer.strict import Listed, SpecError, Strict

Auto = Literal["auto"]
MHPO = "mhpo_"
_TOKENS = {"low": 512, "medium": 2048, "high": 8192}  # by reasoning_effort; default: the job spec's
FINE_TUNED = re.compile(r"ft:[^:]*:[^:]*:(?P<job>job-[a-z2-7]{24})(?::ckpt-step-(?P<step>\d{1,18}))?")


class Hyperparameters(Strict):
    """OpenAI's, and `mhpo_...` for each field of the job spec's algorithm mhpo."""

    batch_size: Annotated[Auto | Annotated[int, Field(ge=1, le=65_536)], Field(description="Problems a step")] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = "auto"
    n_epochs: Auto | Annotated[int, Field(ge=1, le=10_000)] = "auto"
    compute_multiplier: Annotated[
        Auto | Annotated[float, Field(gt=1e-5, le=512)], Field(description="Times the 8 completions of a problem")
    ] = "auto"
    eval_interval: Annotated[Auto | Annotated[int, Field(ge=1)], Field(description="Steps between checkpoints")] = "auto"
    eval_samples: Auto | Annotated[int, Field(ge=1)] = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


class Reinforcement(Strict):
    grader: dict[str, Any]
    hyperparameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    response_format: None = None


class Method(Strict):
    type: Literal["reinforcement"]
    reinforcement: Reinforcement


Text64 = Annotated[str, Field(max_length=64)]
Text512 = Annotated[str, Field(max_length=512)]


class FineTune(Strict):
    """The body of `POST /v1/fine_tuning/jobs`. `x_spec` is merged into the job spec that is made of the rest."""

    model: Annotated[str, Field(min_length=1, description="A model folder, a hub id, or a fine-tuned model (ft:...)")]
    training_file: str
    validation_file: str | None = None
    method: Method
    suffix: Annotated[str | None, Field(max_length=64, pattern=r"^[^:]*$")] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**31)] = None
    metadata: Annotated[dict[Text64, Text512] | None, Field(max_length=16)] = None
    integrations: Annotated[Listed[tuple[()]] | None, Field(description="None are served")] = None
    x_spec: Annotated[dict[str, Any], Field(default_factory=dict)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is recorded of a request: the spec that runs, and the request with its hyperparameters filled in."""

    spec: JobSpec
    request: Json


def wanted(session: Session, body: Json) -> Wanted:
    """Check a request; raises SpecError with the dotted place in it. It may make files, in the caller's transaction."""
    _refuse_other_methods(body.get("method"))
    asked = FineTune.parse(body)
    sent = asked.method.reinforcement
    knobs, algorithm = _hyperparameters(sent.hyperparameters)
    grader = checked(sent.grader, "method.reinforcement.grader")
    column = answer_column(sent.grader)
    training = problems_of(session, asked.training_file, "training_file", column)
    validation = None
    if asked.validation_file is not None:
        validation = problems_of(session, asked.validation_file, "validation_file", column)
    model = _model(session, asked.model)
    batch = 16 if knobs.batch_size == "auto" else knobs.batch_size
    epochs = 1 if knobs.n_epochs == "auto" else knobs.n_epochs
    document: Json = {
        "name": asked.suffix,
        "seed": asked.seed or 0,
        "steps": ceil(training.rows * epochs / batch),
        "model": {"path": model},
        "dataset": _dataset(training, model, column),
        "algorithm": {"type": "mhpo", **algorithm},
        "rollout": _rollout(knobs, batch),
        "optimizer": {"lr": Optimizer().lr * _times(knobs.learning_rate_multiplier)},
        "rewards": [grader.model_dump(mode="json")],
        "checkpoints": {} if knobs.eval_interval == "auto" else {"every": knobs.eval_interval},
        "evaluation": {} if validation is None else _evaluation(knobs, validation),
    }
    return Wanted(_parse(merge(document, asked.x_spec, nulls_stay=True)), asked.model_dump(mode="json"))


def _refuse_other_methods(method: Any) -> None:
    kind = method.get("type") if isinstance(method, dict) else None
    if kind in ("supervised", "dpo"):
        raise SpecError("method.type", f"only reinforcement is served here; got {kind!r}")


def model_name(base: str, suffix: str | None, job_id: str, step: int | None = None) -> str:
    """The name of a job's model, or of its checkpoint: `ft:base:sums:job-...:ckpt-step-20`."""
    name = f"ft:{Path(base).name.replace(':', '_')}:{suffix or ''}:{job_id}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def _hyperparameters(sent: dict[str, Any]) -> tuple[Hyperparameters, Json]:
    """(OpenAI's, the fields of our algorithm)."""
    place = "method.reinforcement.hyperparameters"
    ours = {key.removeprefix(MHPO): value for key, value in sent.items() if key.startswith(MHPO)}
    try:
        return Hyperparameters.parse({key: value for key, value in sent.items() if not key.startswith(MHPO)}), ours
    except SpecError as error:
        raise SpecError(f"{place}.{error.param}" if error.param else place, error.message) from error


def _dataset(problems: Problems, model: str, column: str) -> Json:
    chat = _has_chat_template(model)
    if problems.system_prompt is not None and not chat:
        raise SpecError("training_file", f"a system message needs a chat template, which the model {model!r} has not")
    derived = problems.file.purpose == "derived"
    return {
        "path": problems.file.id,
        "answer_column": "answer" if derived else column,
        "chat_template": chat,
        "system_prompt": problems.system_prompt,
    }


def _has_chat_template(model: str) -> bool:
    """Hub ids are taken for chat models; a folder says it itself."""
    folder = Path(model)
    if not folder.is_dir():
        return True
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").exists() or (config.exists() and '"chat_template"' in config.read_text("utf-8"))


def _rollout(knobs: Hyperparameters, batch: int) -> Json:
    tokens = _TOKENS.get(knobs.reasoning_effort)
    group = max(2, round(Rollout().group_size * _times(knobs.compute_multiplier)))
    return {"prompts_per_step": batch, "group_size": group, **({} if tokens is None else {"max_new_tokens": tokens})}


def _evaluation(knobs: Hyperparameters, validation: Problems) -> Json:
    samples = {} if knobs.eval_samples == "auto" else {"samples": knobs.eval_samples}
    return {"benchmarks": [validation.file.id], "every": 1, **samples}


def _times(multiplier: float | Auto) -> float:
    return 1.0 if multiplier == "auto" else multiplier


def _model(session: Session, name: str) -> str:
    """The folder of a fine-tuned model; any other name stays."""
    if not name.startswith("ft:"):
        return name
    found = FINE_TUNED.fullmatch(name)
    if found is None or not is_id("job", found["job"]):
        raise SpecError("model", f"no fine-tuned model has the name {name!r:.120}")
    job = find_job(session, found["job"])
    checkpoint = session.get(Checkpoint, (job.id, job.steps if found["step"] is None else int(found["step"])))
    if checkpoint is None:
        raise SpecError("model", f"the job {job.id} has no such checkpoint")
    return str(settings().run_folder(job.id) / checkpoint.path)


def _parse(document: Json) -> JobSpec:
    """Faults are told at their place in `x_spec`, or in the request where that is where they come from."""
    try:
        return JobSpec.parse(document)
    except SpecError as error:
        place = error.param or ""
        if place.startswith("algorithm."):
            place = f"method.reinforcement.hyperparameters.{MHPO}{place.removeprefix('algorithm.')}"
        elif place:
            place = f"x_spec.{place}"
        raise SpecError(place or None, error.message) from error

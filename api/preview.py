"""The first rows of a data set, and what the policy would be asked: to be looked at before a job is made of them."""

import json
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from api.preflight import resolve_rows
from api.schemas import View
from trainer.config import Dataset
from trainer.data import is_local, iter_problems, iter_rows
from trainer.row_columns import is_json
from trainer.strict import SpecError
from trainer.types import Problem

_LONGEST = 2000  # characters of a text that are shown


class PreviewFault(View):
    param: str | None
    message: str


class PromptView(View):
    """What a row asks, and the answer that graders compare with."""

    messages: Annotated[
        list[dict[str, str]] | None, Field(description="With chat_template: what the model's template is given")
    ]
    prompt: Annotated[str, Field(description="prompt_template with the problem; without chat_template all that is asked")]
    answer: str
    images: int


class PreviewView(View):
    object: Literal["preview"] = "preview"
    columns: list[str]
    rows: Annotated[list[dict[str, Any]], Field(description="The first rows; long texts are cut")]
    prompts: list[PromptView]
    fault: Annotated[PreviewFault | None, Field(description="Why there are no prompts of these rows")]


def preview(session: Session, asked: Dataset, count: int) -> PreviewView:
    """The first `count` rows. Raises SpecError (`dataset...`) where they cannot be read at all; hub ids are not looked up."""
    path = resolve_rows(session, asked.path, asked.revision, "dataset.path")
    if not is_local(path):
        raise SpecError("dataset.path", f"{asked.path!r} is a hub id: its rows are read when the job runs")
    dataset = asked.model_copy(update={"path": path})
    rows = list(islice(iter_rows(dataset, "dataset"), count))
    try:
        prompts, fault = [_prompt(problem, asked) for problem in islice(iter_problems(dataset, "dataset"), count)], None
    except SpecError as error:
        prompts, fault = [], PreviewFault(param=error.param, message=error.message.replace(dataset.path, asked.path))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return PreviewView(columns=columns, rows=[_shown(row) for row in rows], prompts=prompts, fault=fault)


def _prompt(problem: Problem, dataset: Dataset) -> PromptView:
    system = [] if dataset.system_prompt is None else [{"role": "system", "content": dataset.system_prompt}]
    messages = [*system, {"role": "user", "content": _cut(problem.prompt)}] if dataset.chat_template else None
    return PromptView(messages=messages, prompt=_cut(problem.prompt), answer=_cut(problem.answer), images=len(problem.images))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {column: _cut(value) if isinstance(value, str) else _value(value) for column, value in row.items()}


def _value(value: object) -> object:
    if not is_json(value):
        return f"({type(value).__name__})"
    text = json.dumps(value)
    return value if len(text) <= _LONGEST else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

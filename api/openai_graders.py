"""Graders in the form of OpenAI's fine-tuning API, as ours, and one of them run on one sample in a process of its own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.errors import ApiError
from api.models import Json
from trainer.config import Grader
from trainer.strict import SpecError

OUTPUT = "{{sample.output_text}}"
_ITEM = re.compile(r"\s*\{\{\s*item\.(\w+)\s*\}\}\s*")
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Grader)
_SECONDS = 90.0  # a grader's own timeout is at most 60
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")  # of the environment; no secrets


def from_openai(document: Any, param: str = "grader") -> Any:
    """The grader spec of a wire form; our own types pass as they are. Raises SpecError at the dotted place."""
    if not isinstance(document, Mapping):
        raise SpecError(param, f"a grader is an object with a type; got {document!r:.80}")
    ours = dict(document)
    if isinstance(ours.get("name"), str):
        ours["name"] = re.sub(r"[^A-Za-z0-9_.-]+", "_", ours["name"])[:64] or None
    if document.get("type") == "string_check":
        _check_templates(document, param)
    ours = {key: value for key, value in ours.items() if key not in {"input", "reference"}}
    try:
        return _ADAPTER.validate_python(ours)
    except ValidationError as error:
        fault = SpecError.first_of(error, ours)
        raise SpecError(f"{param}.{fault.param}" if fault.param else param, fault.message) from error


def _check_templates(document: Mapping[str, Any], param: str) -> None:
    """Our string check compares the whole completion with one column of the row."""
    if str(document.get("input")).replace(" ", "") != OUTPUT:
        raise SpecError(f"{param}.input", f"must be {OUTPUT!r}; got {document.get('input')!r:.80}")
    if not _ITEM.fullmatch(str(document.get("reference"))):
        raise SpecError(
            f"{param}.reference", f"must be one column, as {{{{item.answer}}}}; got {document.get('reference')!r:.80}"
        )


def answer_column(document: Any) -> str:
    """The column of a row that graders compare with: of the first `reference` that is one, else `answer`."""
    if isinstance(document, Mapping):
        found = _ITEM.fullmatch(str(document.get("reference")))
        if found:
            return found[1]
        columns = [answer_column(part) for part in document.values()]
    else:
        columns = [answer_column(part) for part in document] if isinstance(document, list) else []
    return next((column for column in columns if column != "answer"), "answer")


def run(document: Json, sample: str, item: Json) -> Json:
    """Grade `sample`; the answer of OpenAI's `graders/run`. Where the grader fails, its errors say so, and the reward is 0."""
    grader = from_openai(document)
    answer = item.get(answer_column(document), "")
    problem = {"id": "run", "index": 0, "prompt": "", "answer": answer if isinstance(answer, str) else json.dumps(answer)}
    started = time.perf_counter()
    score = _score({"grader": grader.model_dump(mode="json"), "problem": problem, "text": sample})
    errors: dict[str, str] = score["errors"]
    return {
        "reward": score["reward"],
        "sub_rewards": score["by_grader"],
        "model_grader_token_usage_per_model": {},
        "metadata": {
            "name": document.get("name") or grader.type,
            "type": grader.type,
            "execution_time": time.perf_counter() - started,
            "scores": score["by_grader"],
            "token_usage": None,
            "sampled_model_name": None,
            "errors": {
                **dict.fromkeys(_FLAGS, False),
                "python_grader_server_error_type": None,
                "python_grader_runtime_error_details": None,
                "model_grader_server_error_details": None,
                "other_error": bool(errors),
                "x_details": errors,
            },
        },
    }


_FLAGS = (
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
)


def _score(asked: Json) -> Json:
    """By `python -m trainer.rewards`: what meets untrusted text stays out of this process."""
    command = [sys.executable, "-m", "trainer.rewards"]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        done = subprocess.run(
            command, input=json.dumps(asked).encode(), capture_output=True, timeout=_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise ApiError(HTTPStatus.GATEWAY_TIMEOUT, "grader_timeout", f"the grader took more than {_SECONDS:.0f} s") from None
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ApiError(HTTPStatus.NOT_IMPLEMENTED, "grader_unavailable", f"this grader cannot run here: {last[0]:.300}")
    score: Json = json.loads(done.stdout)
    return score

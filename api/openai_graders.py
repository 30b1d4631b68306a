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

from api.errors import ApiError
from api.graders import check_allowed
from api.models import Json
from trainer.rewards.wire import from_openai

_ITEM = re.compile(r"\s*\{\{\s*item\.(\w+)\s*\}\}\s*")
_THEIRS = ("string_check", "text_similarity", "python", "multi")
_SECONDS = 90.0  # a grader's own timeout is at most 60
# Of the environment; no secrets.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR", "MHPO_PYTHON_GRADERS")


def checked(document: Any, param: str = "grader") -> Any:
    """The grader of a wire form, if this deployment runs it. Raises SpecError at the dotted place.

    `reference` in a type of ours (math, choice, ...) names the column that it compares with, as `answer_column` reads it.
    """
    if isinstance(document, Mapping) and document.get("type") not in _THEIRS:
        document = {key: value for key, value in document.items() if key != "reference"}
    grader = from_openai(document, param)
    check_allowed(grader, param)
    return grader


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
    grader = checked(document)
    answer = item.get(answer_column(document), "")
    problem: Json = {"id": "run", "index": 0, "prompt": "", "answer": answer if isinstance(answer, str) else json.dumps(answer)}
    problem["item"] = item
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

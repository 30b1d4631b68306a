"""`{{item.answer}}` and `{{sample.output_text}}` in the texts of graders, as in OpenAI's fine-tuning API."""

import json
import re
from collections.abc import Mapping
from typing import Any

from trainer.types import Completion, Problem

_VARIABLE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")


def sample_of(completion: Completion) -> dict[str, Any]:
    """The completion as templates and Python graders see it; `output_json` is there where the text is JSON."""
    sample: dict[str, Any] = {
        "output_text": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.token_ids),
    }
    try:
        return sample | {"output_json": json.loads(completion.text)}
    except (ValueError, RecursionError):
        return sample


def item_of(problem: Problem) -> dict[str, Any]:
    """The row's columns; `prompt` and `answer` are there under these names whatever their columns are called."""
    return {"prompt": problem.prompt, "answer": problem.answer, **problem.item}


def fill(template: str, problem: Problem, completion: Completion) -> str:
    """The template with its variables filled in. Raises ValueError that names one that there is not."""
    namespace = {"sample": sample_of(completion), "item": item_of(problem)}
    return _VARIABLE.sub(lambda found: _text(_look_up(found.group(1), namespace)), template)


def _look_up(path: str, namespace: Mapping[str, Any]) -> Any:
    value: Any = namespace
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ValueError(f"there is no {path!r}")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

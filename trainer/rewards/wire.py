"""OpenAI's graders, in the form in which its fine-tuning API takes them, as ours. Torch-free.

string_check, text_similarity, python and multi become graders of the same kind; what would need a judge model or an embedding
is refused plainly.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainer.config import Grader
from trainer.strict import SpecError

_REFUSED = {
    "score_model": "a score_model grader needs a judge model, and none is served here; use string_check, text_similarity, "
    "python, multi or http",
    "label_model": "a label_model grader needs a judge model, and none is served here",
    "endpoint": "an endpoint grader is not served here; use http",
}
_METRICS = {
    "cosine": "cosine similarity needs an embedding model, and none is served here",
    "meteor": "meteor needs WordNet, which is not shipped here; gleu or rouge_l are near it",
}
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Grader)


def from_openai(document: Any, param: str = "grader") -> Any:
    """The grader spec of a wire form; ours (math, choice, ...) pass as they are. Raises SpecError at the dotted place."""
    return _parsed(_ours(document, param), param)


def _ours(document: Any, param: str) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise SpecError(param, f"a grader is an object with a type; got {document!r:.80}")
    kind = document.get("type")
    if kind in _REFUSED:
        raise SpecError(f"{param}.type", _REFUSED[kind])
    if kind == "text_similarity" and document.get("evaluation_metric") in _METRICS:
        raise SpecError(f"{param}.evaluation_metric", _METRICS[document["evaluation_metric"]])
    ours = {key: value for key, value in document.items() if key != "image_tag"}
    if isinstance(ours.get("name"), str):
        ours["name"] = re.sub(r"[^A-Za-z0-9_.-]+", "_", ours["name"])[:64] or None
    if kind == "multi":
        ours["graders"] = _named(document.get("graders"), f"{param}.graders")
    if kind == "string_check" or kind == "text_similarity":
        for key in ("input", "reference"):
            if not isinstance(document.get(key), str):
                raise SpecError(
                    f"{param}.{key}", f"a template such as {{{{item.answer}}}} is needed; got {document.get(key)!r:.80}"
                )
    return ours


def _named(graders: Any, param: str) -> dict[str, Any]:
    """The API's documents have an object by name, a list, and a single grader."""
    if isinstance(graders, Mapping) and "type" not in graders:
        return {name: _ours(grader, f"{param}.{name}") | {"name": None} for name, grader in graders.items()}
    listed = graders if isinstance(graders, list) else [graders]
    named: dict[str, Any] = {}
    for number, grader in enumerate(listed):
        ours = _ours(grader, f"{param}.{number}")
        if not isinstance(name := ours.pop("name", None), str):
            raise SpecError(f"{param}.{number}.name", "a grader in a list needs the name that the formula knows it by")
        named[name] = ours
    return named


def _parsed(ours: dict[str, Any], param: str) -> Any:
    try:
        return _ADAPTER.validate_python(ours)
    except ValidationError as error:
        fault = SpecError.first_of(error, ours)
        raise SpecError(f"{param}.{fault.param}" if fault.param else param, fault.message) from error

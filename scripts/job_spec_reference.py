"""Writes docs/job-spec.md from the spec's own models: `.venv/bin/python scripts/job_spec_reference.py`."""

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config import JobSpec

TARGET = Path(__file__).parents[1] / "docs" / "job-spec.md"
HEAD = """# The job spec

One document decides what a run computes. It is the body of `POST /v1/jobs`, the file that `mhpo submit` and `python -m trainer`
take (JSON or TOML), and `config.json` in the run folder. An unknown key is an error that names the nearest right one;
nothing is converted ("8" is not 8). This page is made from `trainer/config.py` (and the models that it holds)
by `scripts/job_spec_reference.py`.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *section("The spec", JobSpec, "")]).rstrip() + "\n"


def section(title: str, model: type[BaseModel], place: str) -> list[str]:
    """A table of the model's fields, then the sections of the models that they hold."""
    lines = [
        f"## {title}",
        "",
        (model.__doc__ or "").replace("\n", " "),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    inner: list[str] = []
    for name, field in model.model_fields.items():
        lines.append(f"| `{place}{name}` | {kind(field.annotation)}{bounds(field)} | {default(field)} | {meaning(field)} |")
        inner += [
            line
            for held in models_in(field.annotation)
            if name != "graders"  # of a multi grader: those of `rewards`, which have their sections
            for line in section(heading(f"{place}{name}", held), held, f"{place}{name}{joint(field)}")
        ]
    return [*lines, "", *inner]


def heading(place: str, model: type[BaseModel]) -> str:
    """`algorithm` of type `mhpo`"""
    tag = model.model_fields.get("type")
    return f"`{place}`" if tag is None else f"`{place}` of type `{tag.default}`"


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field may hold, in the order declared."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def joint(field: FieldInfo) -> str:
    """What stands between the field and those of a model that it holds: one, a list of them, or one for each name."""
    origin = get_origin(field.annotation)
    return "[]." if origin is tuple else ".NAME." if origin is dict else "."


def kind(annotation: Any) -> str:
    """A type as users of JSON know it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0])
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, UnionType):
        names = [kind(argument) for argument in arguments]
        return "object, by `type`" if set(names) == {"object"} else " or ".join(names)
    if origin is dict:
        return "object"
    if origin is tuple:
        return f"list of {kind(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}[annotation]


def bounds(field: FieldInfo) -> str:
    """`, > 0`"""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [f"{sign} {getattr(rule, name)}" for rule in metadata(field) for name, sign in signs.items() if hasattr(rule, name)]
    return "".join(f", {bound}" for bound in dict.fromkeys(found))


def metadata(field: FieldInfo) -> list[Any]:
    """The constraints of a field, those inside `X | None` included."""
    inner = [m for argument in get_args(field.annotation) if get_origin(argument) is Annotated for m in get_args(argument)[1:]]
    return [*field.metadata, *(rule for one in inner for rule in (one.metadata if isinstance(one, FieldInfo) else [one]))]


def default(field: FieldInfo) -> str:
    """The default as JSON, or that there is none."""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        tag = value.model_dump().get("type")
        return f"`{tag}`'s defaults" if tag else "its defaults"
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return "one `math` grader"
    words = {None: "`null`", True: "`true`", False: "`false`"}
    return (
        words[value]
        if value is None or isinstance(value, bool)
        else f"`{list(value) if isinstance(value, tuple) else value!r}`".replace("'", '"')
    )


def meaning(field: FieldInfo) -> str:
    """The field's description, or that of the model it holds."""
    held = models_in(field.annotation)
    text = field.description or (held[0].__doc__ if len(held) == 1 else "") or ""
    return text.replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")

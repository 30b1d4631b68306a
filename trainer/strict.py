"""The base of every spec model: strict, frozen, and an unknown key is an error that names the nearest right one."""

from difflib import get_close_matches
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

T = TypeVar("T")
Listed = Annotated[T, Field(strict=False)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
_SHOWN = 80  # characters of a key that comes back in an error


class Strict(BaseModel):
    """A model that refuses unknown keys and never changes what it was given.

    Numbers and strings are not converted into each other ("8" is not 8). Fields that are tuples are declared with
    `Listed`, so that a JSON or TOML list stands for one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in data:
            if key in known:
                continue
            near = get_close_matches(str(key)[:_SHOWN], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise PydanticCustomError(
                "unknown_key", "unknown key {key}; {hint}", {"key": repr(str(key)[:_SHOWN]), "hint": hint}
            )
        return data

    @classmethod
    def parse(cls, data: Any) -> Self:
        """The model made from JSON-like `data`; raises SpecError with the dotted place of the first fault."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError.first_of(error, data) from error


class SpecError(ValueError):
    """A spec that cannot be run: `param` is the dotted place of the fault, `message` says what would be right."""

    def __init__(self, param: str | None, message: str) -> None:
        super().__init__(f"{param}: {message}" if param else message)
        self.param = param
        self.message = message

    @classmethod
    def first_of(cls, error: ValidationError, data: Any) -> Self:
        fault = error.errors(include_url=False)[0]
        return cls(dotted(fault, data), describe(fault))


def dotted(fault: Any, data: Any) -> str | None:
    """The place of a pydantic fault as users write it: `rollout.group_size`, `rewards.0.weight`.

    pydantic puts the tag of a tagged union into the place (`algorithm.mhpo.c`); `data` tells it from a key.
    """
    absent = fault["type"] == "missing"
    place: list[str] = []
    here = data
    for depth, part in enumerate(fault["loc"]):
        if _holds(here, part):
            place.append(str(part))
            here = here[part]
        elif absent and depth == len(fault["loc"]) - 1:
            place.append(str(part))
    if fault["type"] == "unknown_key":
        place.append(fault["ctx"]["key"].strip("'"))
    return ".".join(place) or None


def _holds(data: Any, part: Any) -> bool:
    return (
        part in data
        if isinstance(data, dict)
        else isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
    )


def describe(fault: Any) -> str:
    """One sentence: what is wrong, and the value that was given."""
    message = str(fault["msg"])
    if fault["type"] == "value_error":  # raised by a validator of ours, which says all there is to say
        return str(fault["ctx"]["error"])
    if fault["type"] == "union_tag_not_found":
        return f"a `type` is needed to tell which one this is; got {fault['input']!r:.80}"
    if fault["type"] in {"missing", "unknown_key"}:
        return message
    value = repr(fault["input"])
    return f"{message}; got {value if len(value) <= 80 else value[:77] + '...'}"

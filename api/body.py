"""A request's JSON, read strictly: what PostgreSQL cannot keep or two readers could read differently is refused."""

import json
from http import HTTPStatus
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Request

from api.errors import ApiError
from api.models import Json

MAX_DEPTH = 32
MAX_INT = 2**63 - 1


async def _object_of(request: Request) -> Json:
    return parse_object(await request.body())


JsonBody = Annotated[Json, Depends(_object_of)]


def parse_object(body: bytes) -> Json:
    """The JSON object in `body`; raises ApiError 400 for anything else.

    Refused as well: NaN and infinity, integers beyond 64 bits, a key twice, NUL and lone surrogates in strings, and more
    than 32 levels.
    """
    try:
        document = json.loads(
            body.decode("utf-8"), parse_constant=_no_number, parse_int=_integer, parse_float=_float, object_pairs_hook=_unique
        )
    except RecursionError:
        raise _bad(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # of the decoder, or raised by one of the hooks below
        raise _bad(str(error)) from error
    if not isinstance(document, dict):
        raise _bad(f"it is not an object: {body[:40].decode('utf-8', 'replace')}")
    _check(document, "", 1)
    return document


def _check(value: Any, place: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _bad(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, place)
            _check(item, f"{place}.{key}" if place else key, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, f"{place}.{number}" if place else str(number), depth + 1)


def _check_text(text: str, place: str) -> None:
    if "\0" in text:
        raise _bad("a string holds the character NUL", place)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _bad("a string holds half of a surrogate pair, which is no character", place)


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.80} is there twice")
    return document


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > MAX_INT:
        raise ValueError(f"the integer {digits:.40} does not fit into 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    if float(digits) in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits:.40} is too large")
    return float(digits)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _bad(message: str, place: str = "") -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", f"The body is not usable JSON: {message}", place or None)

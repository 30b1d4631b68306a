"""Bodies that somebody sends to break the service, made by a seed: the same seed makes the same bodies."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

from api.models import Json

ID = "/v1/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa/cancel"
NUMBERS = [0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 10**30, 10**400, 1e308, -1e308, 5e-324, 1e-300, 0.1, -0.0]
TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "\u202eevil",
    "\ufeff",
    "\N{COMBINING ACUTE ACCENT}" * 300,
    "\U0010ffff",
    "\x1b[31m",
    "\r\nx-injected: 1",
    "'; DROP TABLE jobs; --",
    "{problem}{problem.__class__}",
    "{0.__init__.__globals__}",
    "%s%n%x",
    "${jndi:ldap://x}",
    "<script>alert(1)</script>",
    "a" * 5000,
    "nan",
    "null",
    "9" * 5000,
]
PATHS = [
    "/",
    ".",
    "..",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/etc/passwd\0.jsonl",
    "/proc/self/environ",
    "/proc/self/fd/0",
    "/dev/zero",
    "/dev/stdin",
    "/dev/random",
    "file:///etc/passwd",
    "http://127.0.0.1:1/x.jsonl",
    "~root/.ssh/id_rsa",
    "\\\\host\\share",
    "C:\\x",
    "a/../../b",
    "a/..",
    "owner/name/../..",
    "owner/" + "n" * 300,
    "a" * 300 + "/b",
    "file-aaaaaaaaaaaaaaaaaaaaaaaa",
    "file-" + "a" * 5000,
    "file-\u202e",
    "x" * 5000 + ".jsonl",
    "./" * 2000 + "x.jsonl",
    "%2e%2e%2fetc%2fpasswd",
    ".mhpo/key.json",
    "\ud800/x",
    " /x",
]
PATTERNS = [
    "(",
    "(" * 5000,
    "(" * 200 + ")" * 200,
    "(" * 3000 + ")" * 3000,
    "(a+)+$",
    "a{99999999999999999999}",
    "(?:a{60000}){60000}",
    "[",
    "\\",
    "(?P<x>a)(?P<x>b)",
    "(?i" * 100,
    "[^" * 1000,
    "(?<=a*)b",
    "\\777777",
    "(?(1)a|b)",
    "\\N{NO SUCH NAME}",
    "|" * 10000,
]
KEYS = [
    "",
    "\0",
    "__proto__",
    "__class__",
    "constructor",
    "\ud800",
    "a" * 10000,
    "steps ",
    "STEPS",
    "model.path",
    "\u202e",
    "0",
]


def bodies(spec: Json, seed: int, count: int) -> Iterator[bytes]:
    """`count` bodies; a quarter is no document at all, the others are `spec` with one to three things wrong."""
    random = Random(seed)
    for _ in range(count):
        yield random.choice(_RAW)(random, spec) if random.random() < 0.25 else _document(random, spec)


def _document(random: Random, spec: Json) -> bytes:
    document = deepcopy(spec)
    for _ in range(random.randint(1, 3)):
        random.choice(_CHANGES)(random, document)
    return _encoded(document)


def _encoded(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=True).encode()


def hostile_value(random: Random, depth: int = 0) -> Any:
    """Anything that JSON can say, and more than PostgreSQL can keep."""
    kind = random.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return random.choice(NUMBERS)
    if kind == 1:
        return random.choice(TEXTS)
    if kind == 2:
        return random.choice(PATHS)
    if kind == 3:
        return random.choice([None, True, False, float("nan"), float("inf"), -float("inf")])
    if kind == 4:
        return random.choice([[], {}, [[]], [{}], {"type": None}, {"type": []}, {"type": "mhpo", "c": "x"}])
    if kind == 5:
        return [hostile_value(random, depth + 1) for _ in range(random.randrange(5))]
    if kind == 6:
        return {
            random.choice([*KEYS, "type", "path", "name"]): hostile_value(random, depth + 1) for _ in range(random.randrange(5))
        }
    return _nested(random.choice([10, 31, 33, 60]))


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of everything in a document."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, item in items:
        yield value, key
        yield from _places(item)


def _replace(random: Random, document: Json) -> None:
    places = list(_places(document))
    if places:
        container, key = random.choice(places)
        container[key] = hostile_value(random)


def _drop(random: Random, document: Json) -> None:
    places = [(container, key) for container, key in _places(document) if isinstance(container, dict)]
    if places:
        container, key = random.choice(places)
        del container[key]


def _add(random: Random, document: Json) -> None:
    containers = [document, *(container[key] for container, key in _places(document) if isinstance(container[key], dict))]
    random.choice(containers)[random.choice(KEYS)] = hostile_value(random)


def _wrong_path(random: Random, document: Json) -> None:
    path = random.choice(PATHS)
    choice = random.randrange(3)
    if choice == 0:
        document["model"] = {"path": path}
    elif choice == 1:
        document["dataset"] = {"path": path}
    else:
        document["evaluation"] = {"benchmarks": [path]}


def _wrong_pattern(random: Random, document: Json) -> None:
    document["rewards"] = [{"type": "regex", "pattern": random.choice(PATTERNS)}]


_CHANGES: list[Callable[[Random, Json], None]] = [_replace, _replace, _drop, _add, _wrong_path, _wrong_pattern]


def _bytes(random: Random, spec: Json) -> bytes:
    return random.randbytes(random.randrange(200))


def _cut(random: Random, spec: Json) -> bytes:
    whole = _encoded(spec)
    return whole[: random.randrange(len(whole))]


def _flipped(random: Random, spec: Json) -> bytes:
    whole = bytearray(_encoded(spec))
    for _ in range(random.randint(1, 4)):
        whole[random.randrange(len(whole))] = random.randrange(256)
    return bytes(whole)


def _deep(random: Random, spec: Json) -> bytes:
    depth = random.choice([20, 33, 500, 1500, 20000, 200000])
    opening, closing = random.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    return b'{"model": ' + opening * depth + b"1" + closing * (depth if random.random() < 0.5 else 0) + b"}"


def _number(random: Random, spec: Json) -> bytes:
    digits = random.choice(
        [b"1e999", b"-1e999", b"9" * 5000, b"1" + b"0" * 100000, b"0" * 50, b"1e-999", b"-", b"+1", b"0x10", b"1_0"]
    )
    return b'{"steps": ' + digits + b"}"


def _encoding(random: Random, spec: Json) -> bytes:
    text = json.dumps({**spec, "name": random.choice(["\u00e9", "\U0001f600", "a"])}, ensure_ascii=False)
    return text.encode(random.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-7"]), "replace")


def _many(random: Random, spec: Json) -> bytes:
    return _encoded({f"k{n}": n for n in range(random.choice([1000, 20000]))})


def _twice(random: Random, spec: Json) -> bytes:
    key = random.choice(["steps", "model", "\\u0073teps"])
    return f'{{"steps": 1, "model": {{}}, "{key}": 2}}'.encode()


def _no_object(random: Random, spec: Json) -> bytes:
    return _encoded(random.choice([None, True, 1, "x", [], [spec], [[]]]))


_RAW: list[Callable[[Random, Json], bytes]] = [_bytes, _cut, _flipped, _deep, _number, _encoding, _many, _twice, _no_object]

"""Verdicts of a service: batches over HTTP, several at a time, tried again where trying again can help."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from trainer.rewards.pool import Failure, Outcome

REQUESTS_AT_ONCE = 8
FIRST_WAIT = 0.2  # seconds before the first try again
LARGEST_ANSWER = 4 << 20  # bytes
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Service:
    """Where batches go. `timeout`: seconds for the whole of one request."""

    url: str
    timeout: float
    batch_size: int
    retries: int


@dataclass(frozen=True, slots=True)
class Post:
    """A verdict still to be had from a service; `sample` is a JSON object."""

    service: Service
    sample: str


class _AgainError(Exception):
    """A request that may succeed when it is made again."""


def ask(posts: Sequence[Post]) -> list[Outcome]:
    """The outcome of each, in order. Whatever a service does costs the samples that it was asked about, and nothing else."""
    by_service: dict[Service, list[int]] = defaultdict(list)
    for number, post in enumerate(posts):
        by_service[post.service].append(number)
    batches = [
        (service, numbers[start : start + service.batch_size])
        for service, numbers in by_service.items()
        for start in range(0, len(numbers), service.batch_size)
    ]
    outcomes: dict[int, Outcome] = {}
    with httpx.Client(trust_env=False) as client, ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        answers = threads.map(lambda batch: _batch(client, batch[0], [posts[number].sample for number in batch[1]]), batches)
        for (_, numbers), answer in zip(batches, answers, strict=True):
            outcomes |= dict(zip(numbers, answer, strict=True))
    return [outcomes[number] for number in range(len(posts))]


def _batch(client: httpx.Client, service: Service, samples: Sequence[str]) -> list[Outcome]:
    body = '{"samples": [' + ", ".join(samples) + "]}"
    reason = ""
    for attempt in range(service.retries + 1):
        if attempt:
            time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
        try:
            return _read(_post(client, service, body), len(samples))
        except (_AgainError, httpx.TransportError) as error:
            reason = f"{type(error).__name__.lstrip('_')}: {error}" if isinstance(error, httpx.TransportError) else str(error)
        except (httpx.HTTPError, ValueError) as error:
            return [Failure(f"{service.url}: {error}"[:300])] * len(samples)
    return [Failure(f"{service.url}: {reason} (tried {service.retries + 1} times)"[:300])] * len(samples)


def _post(client: httpx.Client, service: Service, body: str) -> bytes:
    """The answer's body. The limit is of the whole request: a service that drips bytes passes it too."""
    end = time.monotonic() + service.timeout
    headers = {"content-type": "application/json"}
    answer = b""
    with client.stream("POST", service.url, content=body.encode(), headers=headers, timeout=service.timeout) as response:
        for piece in response.iter_bytes():
            answer += piece
            if time.monotonic() > end:
                raise _AgainError("timeout")
            if len(answer) > LARGEST_ANSWER:
                raise ValueError(f"its answer has more than {LARGEST_ANSWER} bytes")
        if response.status_code in _AGAIN:
            raise _AgainError(f"HTTP {response.status_code}")
        if response.status_code != 200:
            raise ValueError(f"HTTP {response.status_code}: {answer[:200].decode('utf-8', 'replace')}")
    return answer


def _read(answer: bytes, count: int) -> list[Outcome]:
    try:
        scores = json.loads(answer)["scores"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'its answer is not {{"scores": [...]}}: {answer[:100].decode("utf-8", "replace")}') from error
    if not isinstance(scores, list) or len(scores) != count:
        raise ValueError(f"its answer has not one score for each of the {count} samples")
    return [_outcome(score) for score in scores]


def _outcome(score: object) -> Outcome:
    if isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score):
        return float(score)
    return Failure(f"the service answered {score!r}, not a finite number"[:300])

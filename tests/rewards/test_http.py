from collections.abc import Iterator
from socket import socket
from typing import Any

import pytest

from tests.rewards.grader_service import Service, service
from tests.rewards.test_score import completion, problem
from trainer.grader_config import HttpGrader
from trainer.rewards.score import Scorer
from trainer.types import Score


@pytest.fixture
def server() -> Iterator[Service]:
    with service() as server:
        yield server


def scores(url: str, texts: list[str], **options: Any) -> list[Score]:
    with Scorer([HttpGrader.parse({"url": url, **options})]) as scorer:
        return scorer.score([(problem("5", number), completion(text)) for number, text in enumerate(texts)])


def test_completions_are_sent_in_batches_and_scores_come_back_in_order(server: Service) -> None:
    texts = ["x" * length for length in range(1, 8)]
    found = scores(server.url("length"), texts, batch_size=3)
    assert [one.by_grader["http"] for one in found] == pytest.approx([length / 10 for length in range(1, 8)])
    assert sorted(map(len, server.asked)) == [1, 3, 3]
    [first] = [one for batch in server.asked for one in batch if one["sample"]["output_text"] == "x"]
    assert first["item"] == {"prompt": "?", "answer": "5"}
    assert (first["sample"]["finish_reason"], first["sample"]["tokens"]) == ("stop", 3)


def test_a_service_that_is_down_for_a_moment_is_asked_again(server: Service) -> None:
    assert scores(server.url("second_time"), ["a"], retries=1) == [Score(1.0, {"http": 1.0})]
    assert len(server.asked) == 2


@pytest.mark.parametrize("path", ["slow", "drip"])
def test_a_service_that_takes_too_long_costs_an_error(server: Service, path: str) -> None:
    [found] = scores(server.url(path), ["a"], retries=0, timeout=0.3)
    assert found.reward == 0.0
    assert "imeout" in found.errors["http"] or "timed out" in found.errors["http"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("refuses", 'HTTP 422: {"error": "no such model"}'),
        ("too_few", "not one score for each of the 2 samples"),
        ("odd", 'its answer is not {"scores": [...]}'),
    ],
)
def test_an_answer_that_cannot_be_used_is_named_and_not_asked_for_again(server: Service, path: str, reason: str) -> None:
    found = scores(server.url(path), ["a", "b"])
    assert all(reason in one.errors["http"] for one in found)
    assert len(server.asked) == 1


def test_one_sample_without_a_score_costs_only_itself(server: Service) -> None:
    found = scores(server.url("some_null"), ["a", "b"])
    assert found[0] == Score(1.0, {"http": 1.0})
    assert found[1].errors == {"http": "the service answered None, not a finite number"}


def test_nobody_there_is_said_after_the_last_try() -> None:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        [found] = scores(f"http://127.0.0.1:{free.getsockname()[1]}/", ["a"], retries=1)
    assert "ConnectError" in found.errors["http"]
    assert "(tried 2 times)" in found.errors["http"]

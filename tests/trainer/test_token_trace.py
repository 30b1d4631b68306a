"""Token traces: of which tokens they are, whatever the micro-batches, and by which update."""

from collections.abc import Sequence
from itertools import count

import pytest
import torch

from trainer.batch import cut, trainable
from trainer.learner import TokenRecord
from trainer.token_trace import TokenTrace, pieces
from trainer.types import Completion, Problem, RolloutGroup, Score


def groups(lengths: Sequence[Sequence[int]]) -> list[RolloutGroup]:
    """A group for each list of completion lengths; no token comes twice."""
    token = count(10)
    made = []
    for index, of_group in enumerate(lengths):
        completions = tuple(_completion(tuple(next(token) for _ in range(length))) for length in of_group)
        scores = tuple(Score(1.0, {}) for _ in completions)
        made.append(RolloutGroup(Problem(f"p{index}", index, "", ""), (1, 2), completions, scores, (1.0,) * len(completions)))
    return made


def _completion(ids: tuple[int, ...]) -> Completion:
    return Completion(ids, "", tuple(-0.001 * i for i in ids), "stop")


def seen(made: Sequence[RolloutGroup], budget: int, shift: float) -> TokenRecord:
    """What an update would record whose log-ratio of a token is its id plus `shift`."""
    sequences, record = trainable(made), TokenRecord()
    for piece in cut(sequences, budget):
        ids = torch.tensor([float(i) for row in piece for i in sequences[row].completion_token_ids])
        record.pieces.append(piece)
        record.old_logprobs.append(-ids)
        record.logprobs.append(torch.full_like(ids, shift))
        record.sampler_logprobs.append(-0.001 * ids)
        record.telemetry.setdefault("multiplier", []).append(ids * 2)
    return record


@pytest.mark.parametrize("micro_batch_tokens", [6, 9, 1000])
def test_each_token_has_its_own_numbers(micro_batch_tokens: int) -> None:
    made = groups([(3, 1), (5, 2)])
    trace = TokenTrace(made, 100)
    trace.add(trainable(made), seen(made, micro_batch_tokens, 0.5))
    for group in made:
        for completion in group.completions:
            traced = trace.of(group, completion)
            assert traced is not None
            assert traced.token_ids == completion.token_ids
            assert traced.values["log_ratio"] == [i + 0.5 for i in completion.token_ids]
            assert traced.values["multiplier"] == [2.0 * i for i in completion.token_ids]
            assert traced.values["sampler_difference"] == pytest.approx([-0.999 * i for i in completion.token_ids], rel=1e-3)
            assert "survival" not in traced.values


def test_the_budget_ends_within_a_completion_and_the_last_update_counts() -> None:
    made = groups([(3, 4), (2, 2)])
    trace = TokenTrace(made, 5)
    for shift in (0.25, 0.5):
        trace.add(trainable(made), seen(made, 1000, shift))
    kept = [[trace.of(group, completion) for completion in group.completions] for group in made]
    assert [[None if each is None else len(each.token_ids) for each in group] for group in kept] == [[3, 2], [None, None]]
    assert kept[0][1] is not None
    assert kept[0][1].values["log_ratio"] == [13.5, 14.5]
    assert TokenTrace(made, 0).of(made[0], made[0].completions[0]) is None


def test_a_character_of_several_tokens_is_that_of_the_last() -> None:
    data = [b"a", *(bytes([byte]) for byte in "€é".encode()), b"\xff"]

    def decode(ids: list[int]) -> str:
        return b"".join(data[i] for i in ids).decode("utf-8", "replace")

    assert pieces(range(7), decode) == ["a", "", "", "€", "", "é", "\ufffd"]

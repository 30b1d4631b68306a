"""Sequences that begin alike share rows: which ones, and that values and gradients stay the library's."""

from itertools import chain

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.kinds import models
from tests.trainer.test_cpu_layers import OURS, gradients, library
from trainer.cpu.body import Body
from trainer.cpu.branches import Branches, chunked
from trainer.cpu.decoding import Drawn, SmallModel, continue_prompts
from trainer.cpu.passes import part_ways
from trainer.rollout.transformers_sampler import uniform_numbers

# Three tokens: many sequences are alike, or one the beginning of another.
sequences_alike = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=8), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 60))
def test_parts_hold_everything_once(sizes: list[int], multiple: int, rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.cpu.branches.ROWS", rows)
        parts = chunked(sizes, multiple)
    assert [size for part in parts for size in sizes[part]] == sizes
    assert all(sizes[part] for part in parts)
    assert len(parts) % multiple == 0 or len(parts) == len(sizes)


@settings(deadline=None)
@given(sequences_alike, st.integers(1, 3), st.integers(1, 30))
def test_a_token_has_the_row_of_what_is_the_same_up_to_it(sequences: list[list[int]], threads: int, rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.cpu.branches.ROWS", rows)
        patch.setattr("trainer.cpu.branches.ALONE", 10)
        found = Branches.of(list(chain.from_iterable(sequences)), [len(sequence) for sequence in sequences], threads)
    beginnings = [tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))]
    of_row: dict[int, tuple[int, ...]] = {}
    for row, beginning in zip(found.rows_N.tolist(), beginnings, strict=True):
        assert of_row.setdefault(row, beginning) == beginning
    assert sorted(of_row) == list(range(len(found.token_ids_U))), "no row for nothing"
    assert [(beginning[-1], len(beginning) - 1) for _, beginning in sorted(of_row.items())] == list(
        zip(found.token_ids_U.tolist(), found.positions_U.tolist(), strict=True)
    )
    for chunk in found.chunks:
        of_chunk = [of_row[row] for row in range(chunk.rows.start, chunk.rows.stop)]
        assert len(set(of_chunk)) == len(of_chunk), "each beginning once"
        ends = [of_chunk[end - 1] for end in chunk.starts[1:]]
        for number, (end, rows_of, shared) in enumerate(zip(ends, numpy.diff(chunk.starts), chunk.shared, strict=True)):
            assert len(end) == shared + rows_of
            assert end[:shared] == (ends[number - 1][:shared] if number else ())


@pytest.mark.slow  # what it compiles takes longer than it does
@pytest.mark.parametrize("name", OURS)
@settings(max_examples=40, deadline=None)
@given(sequences=sequences_alike, count=st.integers(1, 3), rows=st.integers(1, 30))
def test_values_and_gradients_are_the_librarys(name: str, sequences: list[list[int]], count: int, rows: int) -> None:
    """In float64, however alike the sequences are and however they are cut into chunks."""
    model, threads = models()[name].double(), torch.get_num_threads()
    lengths = [len(sequence) for sequence in sequences]
    ids = torch.tensor(list(chain.from_iterable(sequences)))
    expected = library(model, ids, lengths)
    of_library = gradients(model, expected)
    torch.set_num_threads(count)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trainer.cpu.branches.ROWS", rows)
            patch.setattr("trainer.cpu.branches.ALONE", 10)
            found = Body(model)(ids, lengths)
            ours = gradients(model, found)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for parameter, gradient in of_library.items():
        torch.testing.assert_close(ours[parameter], gradient, rtol=0, atol=1e-10, msg=parameter)


def test_a_cut_is_between_prompts_where_that_is_nearly_as_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.cpu.branches.ROWS", 200)
    sizes, shared = [100, 10, 10, 10, 10, 100, 10, 10] * 2, [0, 90, 90, 90, 90, 0, 90, 90] * 2
    assert [shared[part.start] for part in chunked(sizes, 2, shared)] == [0, 0, 0, 0]
    assert [shared[part.start] for part in chunked(sizes, 2)] == [0, 90, 0, 90]


def test_rows_part_ways() -> None:
    """Homes 0 (rows 0 to 3, of which 0 has ended) and 4 (rows 4 to 6): the first that goes on keeps the home."""
    alive, drawn = numpy.array([1, 2, 3, 4, 5, 6]), numpy.array([0, 8, 9, 8, 5, 5, 5])
    homes, lengths = numpy.array([0, 0, 0, 0, 4, 4, 4]), numpy.array([2, 0, 0, 0, 3, 0, 0])
    keys = torch.arange(7.0).view(1, 7, 1, 1, 1).expand(1, 7, 1, 4, 2).contiguous().numpy()
    values, moved, places = keys + 10, numpy.full(7, -1), numpy.full(7, -1)
    assert part_ways(alive, drawn, homes, lengths, keys, values, moved, places) == 3
    assert moved.tolist() == [-1, 0, 2, 0, 4, 4, 4]
    assert places[:3].tolist() == [0, 2, 4]
    assert lengths.tolist() == [2, 0, 2, 0, 3, 0, 0]
    assert keys[0, :, 0, :, 0].tolist() == [[0] * 4, [1] * 4, [0, 0, 2, 2], *([place] * 4 for place in range(3, 7))]
    assert (values == keys + 10).all()


@pytest.mark.slow
@pytest.mark.parametrize("ends", [[7, 21], [11]])
@pytest.mark.parametrize("temperature", [0.0, 0.05, 0.2, 1.0])
@torch.no_grad()
def test_rows_that_go_together_draw_what_each_draws_alone(temperature: float, ends: list[int]) -> None:
    """The hotter, the sooner they part: into many, some of which end before others."""
    model, prompts, copies, limit = SmallModel(models()["qwen3"].double().eval()), [(3, 4, 5), (8,), (3, 4, 9)], [9, 1, 6], 12
    uniform = uniform_numbers(range(sum(copies)), limit)

    def drawn(prompts: list[tuple[int, ...]], copies: list[int], uniform: torch.Tensor) -> Drawn:
        return continue_prompts(
            model, prompts, copies, uniform, ends, temperature=temperature, top_p=1.0, stop=numpy.zeros(1, numpy.int8)
        )

    together = drawn(prompts, copies, uniform)
    rows = [prompt for prompt, count in zip(prompts, copies, strict=True) for _ in range(count)]
    for row, prompt in enumerate(rows):
        alone = drawn([prompt], [1], uniform[row : row + 1])
        count = int(alone.counts_B[0])
        assert count == together.counts_B[row]
        assert torch.equal(alone.tokens_BT[0, :count], together.tokens_BT[row, :count])
        torch.testing.assert_close(alone.logprobs_BT[0, :count], together.logprobs_BT[row, :count], rtol=0, atol=1e-6)
    distinct = {(prompt, *tokens) for prompt, tokens in zip(rows, together.tokens_BT.tolist(), strict=True)}
    assert (len(distinct) == len(prompts)) == (temperature == 0)

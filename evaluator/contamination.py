"""How much of a benchmark a training set holds: shared runs of words. Torch-free."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from evaluator.scores import mean
from trainer.config import Dataset
from trainer.data import iter_problems

WORDS = 8  # in a run
THRESHOLD = 0.6  # of a problem's runs, found in one training row

_WORD = re.compile(r"[^\W\d_]+|\d+")
_IDEOGRAPHS = re.compile("([\u4e00-\u9fff])")  # written without spaces: each is a word


@dataclass(frozen=True, slots=True)
class Overlap:
    """The training row that shares most of a problem's runs of words; `row` is None where none shares any."""

    share: float
    row: int | None


@dataclass(frozen=True, slots=True)
class Contamination:
    """Said beside a score: which problems the training set holds, and the score of the others."""

    training: str  # path or hub id
    words: int
    threshold: float
    problems: int
    contaminated: int
    problem_ids: tuple[str, ...]
    clean_avg: float | None  # None where no problem is left


def overlaps(problems: Sequence[str], training: Iterable[str], words: int = WORDS) -> list[Overlap]:
    """Of each problem. Memory is the benchmark's, whatever the size of the training set."""
    runs = [set(_runs(text, words)) for text in problems]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, own in enumerate(runs):
        for run in own:
            holders[run].append(number)
    best = [Overlap(0.0, None)] * len(problems)
    for row, text in enumerate(training):
        shared = Counter(number for run in set(_runs(text, words)) for number in holders.get(run, ()))
        for number, count in shared.items():
            if (share := count / len(runs[number])) > best[number].share:
                best[number] = Overlap(share, row)
    return best


def training_texts(dataset: Dataset) -> Iterator[str]:
    """The bare problems of a training set."""
    bare = dataset.model_copy(update={"prompt_template": "{problem}", "image_column": None})
    return (problem.prompt for problem in iter_problems(bare, "training"))


def contamination(ids: Sequence[str], found: Sequence[Overlap], scores: Sequence[float], training: str) -> Contamination:
    """What is said of a benchmark whose problems have these ids, overlaps and scores."""
    held = [overlap.share >= THRESHOLD for overlap in found]
    clean = [score for score, dirty in zip(scores, held, strict=True) if not dirty]
    return Contamination(
        training=training,
        words=WORDS,
        threshold=THRESHOLD,
        problems=len(ids),
        contaminated=sum(held),
        problem_ids=tuple(one for one, dirty in zip(ids, held, strict=True) if dirty),
        clean_avg=mean(clean) if clean else None,
    )


def _runs(text: str, words: int) -> Iterator[tuple[str, ...]]:
    """Every run of `words` words; of a shorter text the whole of it."""
    found = _WORD.findall(_IDEOGRAPHS.sub(r" \1 ", text.lower()))
    if 0 < len(found) < words:
        yield tuple(found)
    for start in range(len(found) - words + 1):
        yield tuple(found[start : start + words])

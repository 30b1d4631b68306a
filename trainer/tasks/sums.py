"""Sums of 3 to 6 digits: the task of the first run. Torch-free.

A prompt is `3+7+5+9=`. A good answer works it out and boxes it, `3+7=10,10+5=15,15+9=24\\boxed{24}`;
the bad habit that the base model is given is a bare guess, `\\boxed{23}`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-*/=,.:;!?()[]{}\\ "
WRONG_STEP = 0.05  # share of the partial sums that are wrong in a worked example
MAX_NEW_TOKENS = 52  # the longest worked answer has 51 characters and the end token


def draw_digits(random: Random) -> tuple[int, ...]:
    """3 to 6 digits; the number of addends is uniform."""
    return tuple(random.randrange(10) for _ in range(random.randint(3, 6)))


def prompt(digits: Sequence[int]) -> str:
    """`3+7+5+9=`"""
    return "+".join(map(str, digits)) + "="


def worked(digits: Sequence[int], random: Random, wrong_step: float = 0.0) -> str:
    """The answer worked out; a partial sum is off by one or two with probability `wrong_step`, and the rest follows from it."""
    total = digits[0]
    steps = []
    for digit in digits[1:]:
        partial = total + digit
        if random.random() < wrong_step:
            partial = max(0, partial + random.choice((-2, -1, 1, 2)))
        steps.append(f"{total}+{digit}={partial}")
        total = partial
    return ",".join(steps) + f"\\boxed{{{total}}}"


def guess(digits: Sequence[int], random: Random) -> str:
    """A bare guess, off by a uniform -3..3."""
    return f"\\boxed{{{max(0, sum(digits) + random.randint(-3, 3))}}}"


def write_problems(path: Path, count: int, seed: int, without: frozenset[str] = frozenset()) -> frozenset[str]:
    """Writes `count` distinct problems as JSONL, none of them in `without`; returns their prompts."""
    random = Random(seed)
    prompts: dict[str, str] = {}
    while len(prompts) < count:
        digits = draw_digits(random)
        if (text := prompt(digits)) not in without:
            prompts[text] = str(sum(digits))
    rows = (json.dumps({"id": f"{path.stem}-{i}", "problem": p, "answer": a}) for i, (p, a) in enumerate(prompts.items()))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return frozenset(prompts)

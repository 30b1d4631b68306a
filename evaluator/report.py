"""Runs side by side: benchmarks x runs, intervals, significance against the first; as data and as Markdown. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluator.paired import Paired, compare
from evaluator.scores import interval, mean

SIGNIFICANT = 0.05

Curve = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Scored:
    """What one benchmark says of one model: of `result.json`, or the mean of several seeds' of the same rows."""

    content_hash: str
    n: int
    problem_scores: tuple[float, ...]
    maj: float
    pass_at_n: float
    contaminated: int | None  # problems that the training set holds, where that was looked at
    seeds: int = 1

    @property
    def avg(self) -> float:
        return mean(self.problem_scores)


@dataclass(frozen=True, slots=True)
class RunScores:
    """A run of the report: one job, or the jobs of one algorithm that differ in their seed."""

    label: str
    job_ids: tuple[str, ...]
    base: dict[str, Scored]  # by benchmark, of the model before training
    trained: dict[str, Scored]
    curves: dict[str, Curve] = field(default_factory=dict)  # by metric


def scored(result: dict[str, Any]) -> Scored:
    """Of a benchmark's part of an evaluation's result."""
    held = result.get("contamination")
    return Scored(
        content_hash=result["content_hash"],
        n=result["n"],
        problem_scores=tuple(result["problem_scores"]),
        maj=result["maj"],
        pass_at_n=result["pass_at"][str(result["n"])],
        contaminated=None if held is None else held["contaminated"],
    )


def mean_of_seeds(scores: Sequence[Scored]) -> Scored | None:
    """Each problem's mean over seeds; None where there are none, or they are of different rows."""
    if not scores or len({(one.content_hash, one.n, len(one.problem_scores)) for one in scores}) > 1:
        return None
    first = scores[0]
    return Scored(
        content_hash=first.content_hash,
        n=first.n,
        problem_scores=tuple(map(mean, zip(*(one.problem_scores for one in scores), strict=True))),
        maj=mean([one.maj for one in scores]),
        pass_at_n=mean([one.pass_at_n for one in scores]),
        contaminated=first.contaminated,
        seeds=len(scores),
    )


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean at the steps that every one of them has."""
    shared = set.intersection(*({step for step, _ in curve} for curve in curves)) if curves else set()
    values = [dict(curve) for curve in curves]
    return [(step, mean([one[step] for one in values])) for step in sorted(shared)]


def report(runs: Sequence[RunScores]) -> dict[str, Any]:
    """The whole comparison as JSON."""
    names = list(dict.fromkeys(name for run in runs for name in (*run.base, *run.trained)))
    metrics = list(dict.fromkeys(name for run in runs for name in run.curves))
    return {
        "object": "comparison_report",
        "runs": [{"label": run.label, "job_ids": list(run.job_ids)} for run in runs],
        "benchmarks": [{"name": name, "cells": [_cell(run, runs[0], name) for run in runs]} for name in names],
        "average": [_average(run, names) for run in runs],
        "curves": {
            metric: [
                {"step": [step for step, _ in curve], "value": [value for _, value in curve]}
                for curve in (run.curves.get(metric, []) for run in runs)
            ]
            for metric in metrics
        },
    }


def _cell(run: RunScores, first: RunScores, name: str) -> dict[str, Any] | None:
    """One run on one benchmark; None until it is scored."""
    score = run.trained.get(name)
    if score is None:
        return None
    low, high = interval(score.problem_scores)
    against, why = _against(score, first.trained.get(name), same=run is first)
    base = run.base.get(name)
    gain, _ = _against(score, base, same=False)
    return {
        "content_hash": score.content_hash,
        "n": score.n,
        "problems": len(score.problem_scores),
        "seeds": score.seeds,
        "avg": score.avg,
        "ci_low": low,
        "ci_high": high,
        "maj": score.maj,
        "pass_at_n": score.pass_at_n,
        "contaminated": score.contaminated,
        "base_avg": None if base is None else base.avg,
        "gain": _told(gain),
        "versus_first": _told(against),
        "not_comparable": why,
    }


def _against(score: Scored, other: Scored | None, *, same: bool) -> tuple[Paired | None, str | None]:
    """The difference to the other's scores of the same problems, or why there is none."""
    if other is None or same:
        return None, None
    if (score.content_hash, len(score.problem_scores)) != (other.content_hash, len(other.problem_scores)):
        return None, f"the first run's score is of other rows ({other.content_hash[:12]}, not {score.content_hash[:12]})"
    return compare(other.problem_scores, score.problem_scores), None


def _told(paired: Paired | None) -> dict[str, Any] | None:
    if paired is None:
        return None
    keys = ("difference", "low", "high", "p_value", "test")
    return {**{key: getattr(paired, key) for key in keys}, "significant": paired.p_value < SIGNIFICANT}


def _average(run: RunScores, names: Sequence[str]) -> float | None:
    """Over benchmarks, as papers' last column; None until all are there."""
    return mean([run.trained[name].avg for name in names]) if names and all(name in run.trained for name in names) else None


def markdown(document: dict[str, Any]) -> str:
    """The table of a report: scores in per cent with 95% intervals; * where the difference to the first run is significant."""
    runs = document["runs"]
    head = ["benchmark", *(run["label"] for run in runs)]
    lines = ["| " + " | ".join(map(_escaped, head)) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join([_escaped(row["name"]), *map(_shown, row["cells"])]) + " |" for row in document["benchmarks"]]
    average = ["average", *("" if value is None else f"{100 * value:.1f}" for value in document["average"])]
    lines.append("| " + " | ".join(average) + " |")
    legend = (
        "avg@n in per cent with its 95% interval over problems, the gain over the base model, and the difference to the first "
        f"run with its p-value (paired over problems); \\* where p < {SIGNIFICANT}."
    )
    notes = ["", legend]
    held = {
        row["name"]: cell["contaminated"]
        for row in document["benchmarks"]
        for cell in row["cells"]
        if cell and cell["contaminated"]
    }
    if held:
        told = ", ".join(f"{count} of {_escaped(name)}" for name, count in held.items())
        notes.append(f"The training set holds problems of the benchmarks: {told}.")
    notes += sorted(
        {cell["not_comparable"] for row in document["benchmarks"] for cell in row["cells"] if cell and cell["not_comparable"]}
    )
    return "\n".join([*lines, *notes]) + "\n"


def _shown(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "not scored yet"
    text = f"{100 * cell['avg']:.1f}"
    if cell["ci_low"] is not None:
        text += f" [{100 * cell['ci_low']:.1f}, {100 * cell['ci_high']:.1f}]"
    if cell["gain"] is not None:
        text += f", base {100 * cell['gain']['difference']:+.1f}"
    against = cell["versus_first"]
    if against is not None:
        text += (
            f", first {100 * against['difference']:+.1f} ({shown_p(against['p_value'])}){'*' if against['significant'] else ''}"
        )
    return text


def shown_p(p_value: float) -> str:
    """`p 0.021`, `p < 0.001`"""
    return "p < 0.001" if p_value < 0.001 else f"p {p_value:.3f}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")

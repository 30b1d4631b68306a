"""The curves of a run as a picture: reward, gradient norm relative to on-policy, completion length, KL to the rollout policy.

python -m benchmarks.figure RUN_FOLDER [-o curves.png]
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.run_folder import read_lines

PANELS = {
    "reward": "reward, mean of the batch",
    "grad_norm/on_policy": "gradient norm / on-policy multiplier",
    "completions/mean_length": "completion length, tokens",
    "entropy": "entropy, nats",
}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each panel's metric; of two lines of a step the later counts."""
    lines = {line["step"]: line["metrics"] for line in read_lines(folder / "metrics.jsonl")}
    return {name: [(step, metrics[name]) for step, metrics in sorted(lines.items()) if name in metrics] for name in PANELS}


def draw(axes: Axes, points: list[tuple[int, float]], title: str) -> None:
    """One panel."""
    axes.plot(*zip(*points, strict=True), color="#2a5db0", linewidth=1.2)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)


def figure(folder: Path) -> Figure:
    """The four panels."""
    picture = Figure(figsize=(8, 5), layout="constrained", dpi=110)
    panels = picture.subplots(2, 2, sharex=True)
    for axes, (name, points) in zip(panels.flat, curves(folder).items(), strict=True):
        draw(axes, points, PANELS[name])
    for axes in panels[1]:
        axes.set_xlabel("step", fontsize=8)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figure", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"))
    arguments = parser.parse_args()
    mpl.use("Agg")
    figure(arguments.run_folder).savefig(arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()

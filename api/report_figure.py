"""A comparison as a picture, in the manner of the MHPO paper's Figure 1: gain by benchmark, gradient norm, reward."""

from io import BytesIO
from typing import Any

PANELS = {"grad_norm": "gradient norm", "reward": "reward, mean of the batch"}


def png(report: dict[str, Any]) -> bytes:
    """Drawn off screen, with no state shared between requests."""
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    panels: list[Axes] = list(figure.subplots(1, 1 + len(PANELS)))
    labels = [run["label"] for run in report["runs"]]
    _gains(panels[0], report, labels)
    for axes, (metric, title) in zip(panels[1:], PANELS.items(), strict=True):
        for number, curve in enumerate(report["curves"].get(metric, [])):
            axes.plot(curve["step"], curve["value"], linewidth=1.2, color=f"C{number}", label=labels[number])
        _dress(axes, title)
        axes.set_xlabel("step", fontsize=8)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _gains(axes: Any, report: dict[str, Any], labels: list[str]) -> None:
    """A group of bars a benchmark: points gained on the base model, or scored where that has no score."""
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        cells = [row["cells"][number] for row in report["benchmarks"]]
        places = [place + width * (number - (len(labels) - 1) / 2) for place in range(len(cells))]
        heights = [_height(cell) for cell in cells]
        axes.bar(places, [height for height, _ in heights], width, color=f"C{number}", label=label)
        axes.errorbar(places, [h for h, _ in heights], [e for _, e in heights], fmt="none", ecolor="black", linewidth=0.8)
    axes.set_xticks(range(len(report["benchmarks"])), [row["name"] for row in report["benchmarks"]], fontsize=8)
    axes.axhline(0, color="black", linewidth=0.6)
    _dress(axes, "gain on the base model, points")
    if labels:
        axes.legend(fontsize=7)


def _height(cell: dict[str, Any] | None) -> tuple[float, float]:
    """In points, with half of the 95% interval."""
    if cell is None:
        return 0.0, 0.0
    if cell["gain"] is not None:
        return 100 * cell["gain"]["difference"], 50 * (cell["gain"]["high"] - cell["gain"]["low"])
    half = 0.0 if cell["ci_low"] is None else 50 * (cell["ci_high"] - cell["ci_low"])
    return 100 * cell["avg"], half


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)

"""Every ratio control in the regimes that tell them apart, on the first run's task, through the project's own trainer.

    python -m benchmarks.regimes run [--seeds 5] [--processes 2] [--data-dir .mhpo] [--results FILE]
    python -m benchmarks.regimes report [--results FILE] [-o docs/regimes]

`run` trains what the results file (benchmarks/results/regimes.jsonl) lacks, 20 batches of 128 completions each at a constant
learning rate of 1e-4, with no gradient clipping, and adds a line a run. `report` writes docs/regimes.md (mean and standard
deviation over seeds, and CPU seconds) and docs/regimes.png. The regimes: on_policy (one update a batch), reuse (16 updates a
batch: four passes in four parts), stale (rollouts 6 batches old).
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.first_run import ROOT, first_run_spec
from trainer.config import JobSpec
from trainer.run_folder import RunFolder, read_lines

MAX_DRIFT = 0.02  # nats a token, where there is a limit
ALGORITHMS: dict[str, dict[str, Any]] = {
    "MHPO": {"algorithm": {"type": "mhpo"}},
    "MHPO, normalised": {"algorithm": {"type": "mhpo", "normalize_on_policy": True}},
    "MHPO, zero region": {"algorithm": {"type": "mhpo", "zero_region": True}},
    "MHPO, normalised, zero region": {"algorithm": {"type": "mhpo", "normalize_on_policy": True, "zero_region": True}},
    "MHPO, batch region, drift limit": {
        "algorithm": {"type": "mhpo", "zero_region": True, "zero_region_since": "batch"},
        "max_drift": MAX_DRIFT,
    },
    "GRPO": {"algorithm": {"type": "grpo"}},
    "DAPO": {"algorithm": {"type": "dapo"}},
    "GSPO": {"algorithm": {"type": "gspo"}},
    "SAPO": {"algorithm": {"type": "sapo"}},
    "CISPO": {"algorithm": {"type": "cispo"}},
}
# With one update a batch a limit leaves nothing out, and nothing has moved since the batch began: there these are what they
# are without it.
LIMITED: dict[str, dict[str, Any]] = {
    f"{name}, drift limit": ALGORITHMS[name] | {"max_drift": MAX_DRIFT} for name in ("MHPO", "GRPO", "GSPO", "SAPO", "CISPO")
}
REGIMES: dict[str, dict[str, int]] = {
    "on_policy": {},
    "reuse": {"updates_per_batch": 16, "epochs_per_batch": 4},
    "stale": {"staleness": 6},
    "stale_reuse": {"staleness": 6, "updates_per_batch": 4},
}
IN_STALE_REUSE = (
    "MHPO",
    "MHPO, zero region",
    "MHPO, batch region, drift limit",
    "GRPO",
    "CISPO",
    "MHPO, drift limit",
    "CISPO, drift limit",
)
DRAWN = list(ALGORITHMS)  # ten, as many as there are colours
STEPS, LR = 20, 1e-4
WATCHED = ("reward", "grad_norm/on_policy", "kl", "entropy", "completions/mean_length")
ALSO_KEPT = ("kl/rollout", "ratio/log_abs_mean")
LABELS = dict(zip(WATCHED, ("reward", "gradient norm / on-policy", "KL from the base", "entropy", "length"), strict=True))
Row = dict[str, Any]


def measured(regime: str) -> list[str]:
    """The names of what is measured in a regime, in the order of the table."""
    match regime:
        case "reuse":
            return [*ALGORITHMS, *LIMITED]
        case "stale_reuse":
            return list(IN_STALE_REUSE)
        case _:
            return list(ALGORITHMS)


def spec_of(base: JobSpec, algorithm: str, regime: str, seed: int) -> JobSpec:
    """The first run's job under an algorithm, in a regime; the KL from the base model is watched at a weight of 1e-12."""
    document = base.model_dump(mode="json")
    settings = REGIMES[regime]
    document |= {
        "seed": seed,
        "steps": STEPS,
        "updates_per_batch": settings.get("updates_per_batch", 1),
        "epochs_per_batch": settings.get("epochs_per_batch", 1),
        "optimizer": {"lr": LR, "max_grad_norm": None},
        "checkpoints": {"every": STEPS},
        "kl": {"type": "loss", "coefficient": 1e-12, "estimator": "k3"},
        "correction": {"type": "none"},
    }
    document |= (ALGORITHMS | LIMITED)[algorithm]
    document["rollout"]["staleness"] = settings.get("staleness", 0)
    document["resources"]["threads"] = 1
    return JobSpec.parse(document)


def one_run(spec: JobSpec, algorithm: str, regime: str, folder: Path) -> Row:
    """Trains in this process; the curve, and the CPU seconds it took."""
    from trainer.stopping import StopSignal
    from trainer.train import train

    shutil.rmtree(folder, ignore_errors=True)
    started = time.process_time()
    run = RunFolder(folder)
    train(spec, run, StopSignal())
    run.close()
    steps = [line["metrics"] for line in read_lines(folder / "metrics.jsonl")]
    shutil.rmtree(folder)
    return {
        "algorithm": algorithm,
        "regime": regime,
        "seed": spec.seed,
        "cpu_seconds": time.process_time() - started,
        "curves": {name: [step[name] for step in steps] for name in (*WATCHED, *ALSO_KEPT)},
    }


def run(arguments: argparse.Namespace) -> None:
    """Trains what is missing."""
    base = first_run_spec(arguments.data_dir, "transformers", STEPS)
    done = {(row["algorithm"], row["regime"], row["seed"]) for row in read_rows(arguments.results)}
    wanted = [(a, r, s) for s in range(arguments.seeds) for r in REGIMES for a in measured(r) if (a, r, s) not in done]
    print(f"{len(wanted)} runs to do, {len(done)} done", flush=True)
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    scratch = arguments.data_dir.resolve() / "regimes"
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool, arguments.results.open("a") as out:
        futures = [
            pool.submit(one_run, spec_of(base, a, r, s), a, r, scratch / f"{a}-{r}-{s}".replace(" ", "")) for a, r, s in wanted
        ]
        for future in as_completed(futures):
            row = future.result()
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"{row['regime']:10} {row['algorithm']:30} seed {row['seed']}: {final(row):.3f}", flush=True)


def read_rows(path: Path) -> list[Row]:
    """The results so far."""
    return read_lines(path) if path.exists() else []


def final(row: Row) -> float:
    """Mean reward of the last three batches."""
    return fmean(row["curves"]["reward"][-3:])


def peak(row: Row) -> float:
    """Highest mean reward of three batches in a row."""
    rewards = row["curves"]["reward"]
    return max(fmean(rewards[i : i + 3]) for i in range(len(rewards) - 2))


def spread(values: Iterable[float]) -> str:
    """`0.74 ± 0.04`: mean and standard deviation (n - 1) over seeds."""
    values = list(values)
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def table(rows: list[Row], regime: str) -> list[str]:
    """One regime as Markdown."""
    lines = [
        "| | n | final reward | peak reward | largest gradient norm / on-policy | KL from base | entropy | length | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for algorithm in measured(regime):
        own = [row for row in rows if (row["algorithm"], row["regime"]) == (algorithm, regime)]
        if own:
            ends = [spread(row["curves"][name][-1] for row in own) for name in WATCHED[2:]]
            cells = [spread(map(final, own)), spread(map(peak, own)), spread(max(r["curves"][WATCHED[1]]) for r in own), *ends]
            lines.append(f"| {algorithm} | {len(own)} | {' | '.join(cells)} | {fmean(row['cpu_seconds'] for row in own):.0f} |")
    return lines


def report(arguments: argparse.Namespace) -> None:
    """docs/regimes.md and docs/regimes.png."""
    rows = read_rows(arguments.results)
    lines = [
        "# The ratio controls by regime",
        "",
        "Made by `python -m benchmarks.regimes run` and `report`: the first run's task, each algorithm at its published",
        f"defaults, {STEPS} batches of 128 completions, AdamW at {LR:g}, no gradient clipping, no correction, one aggregation",
        "for all (mean over completions of the mean over tokens), transformers sampler. Rewards are means of three batches;",
        "mean ± standard deviation over seeds, whose number is in the column n; KL, entropy and length are of the last batch.",
        "CPU seconds are of one thread, rollouts and the watching of the KL included. What follows from it is in",
        "[off-policy.md](off-policy.md).",
        "",
        f"*drift limit*: `max_drift` = {MAX_DRIFT:g}, a batch is left alone once its own updates have moved the policy so far.",
        "*batch region*: `zero_region` with `zero_region_since` = `batch`. With one update a batch neither does anything:",
        "on-policy and stale the row with both is plain MHPO once more, and other rows with a limit are left out.",
    ]
    titles = {
        "on_policy": "On-policy: one update a batch",
        "reuse": "Reuse: 16 updates a batch, four passes in four parts",
        "stale": "Stale: rollouts 6 batches old",
        "stale_reuse": "Stale and used for several updates: rollouts 6 batches old, 4 updates a batch in one pass",
    }
    for regime, title in titles.items():
        lines += ["", f"## {title}", "", *table(rows, regime)]
    lines += ["", "![curves by regime](regimes.png)", ""]
    arguments.output.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    draw(rows, arguments.output.with_suffix(".png"))


def draw(rows: list[Row], path: Path) -> None:
    """Regimes across, metrics down; the mean over seeds of each algorithm."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(14, 12), layout="constrained", dpi=80)
    panels = picture.subplots(len(WATCHED), len(REGIMES), sharex=True)
    for column, regime in enumerate(REGIMES):
        for line, name in enumerate(WATCHED):
            axes = panels[line][column]
            for color, algorithm in enumerate(DRAWN):
                own = [r["curves"][name] for r in rows if (r["algorithm"], r["regime"]) == (algorithm, regime)]
                if own:
                    means = [fmean(values) for values in zip(*own, strict=True)]
                    axes.plot(range(1, len(means) + 1), means, color=f"C{color}", linewidth=1.1, label=algorithm)
            axes.grid(alpha=0.25)
            axes.tick_params(labelsize=8)
            if name in ("grad_norm/on_policy", "kl"):
                axes.set_yscale("log")
            if column == 0:
                axes.set_ylabel(LABELS[name], fontsize=9)
        panels[0][column].set_title(regime.replace("_", " "), fontsize=10)
        panels[-1][column].set_xlabel("batch", fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    picture.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regimes", description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for name, verb in (("run", run), ("report", report)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        sub.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "regimes.jsonl")
        if verb is run:
            sub.add_argument("--seeds", type=int, default=5)
            sub.add_argument("--processes", type=int, default=2)
            sub.add_argument("--data-dir", type=Path, default=ROOT / ".mhpo")
        else:
            sub.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "regimes")
    arguments = parser.parse_args()
    arguments.verb(arguments)


if __name__ == "__main__":
    main()

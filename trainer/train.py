"""The run, readable top to bottom: sample, score, learn, save."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from trainer import checkpoint
from trainer.advantages import has_signal, trained
from trainer.batch import TrainSequence, trainable, updates
from trainer.checkpoint import Progress
from trainer.clock import StepClock
from trainer.config import JobSpec, grader_names
from trainer.data import ProblemOrder, load_problems, split_problems
from trainer.failure import write_failure
from trainer.learner import Learner, NotFiniteError, TokenRecord, Update
from trainer.memory import peak_memory_mb
from trainer.metrics import learner_metrics, length_metrics, rollout_metrics, zero_variance_metrics
from trainer.objective import Objective
from trainer.objective_config import ResampleZeroVariance
from trainer.policy import Policy, load_reference
from trainer.prompts import encode_prompts
from trainer.resampling import resample
from trainer.rewards.score import Scorer
from trainer.rollout.open import choose_device, open_sampler
from trainer.rollout.probe import PROBE_TOKENS, WeightProbe
from trainer.rollout.queue import Order, RolloutQueue
from trainer.rollout.sampler import Sampler, SampleRequest, SamplingSettings, sample_seed
from trainer.rollout.sampling_weights import SamplingWeights
from trainer.run_folder import RunFolder, TraceOf, write_atomically
from trainer.shaping import shape
from trainer.stopping import Stopped, StopSignal
from trainer.strict import SpecError
from trainer.token_trace import TokenTrace, pieces
from trainer.types import Completion, Problem, RolloutGroup

VALIDATION_STEP = 0  # part of the seed of validation samples: each validation draws the same random numbers


@dataclass(slots=True)
class Run:
    """The parts of a run, and where it stands."""

    spec: JobSpec
    folder: RunFolder
    policy: Policy
    reference: Policy | None  # the base model, where a KL term needs it
    learner: Learner
    sampler: Sampler
    probe: WeightProbe
    scorer: Scorer
    order: ProblemOrder
    validation: Sequence[Problem]
    stop: StopSignal
    progress: Progress
    queue: RolloutQueue
    kept: SamplingWeights | None  # with staleness: the sampler's weights, which the learner's have left behind
    synced: int = -1  # optimizer steps that the sampler's weights have seen; -1: nothing pushed yet
    probe_difference: float = 0.0  # of the last push


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a step's optimizer steps have done."""

    updates: list[Update]
    record: TokenRecord
    lags: list[int]  # of each sequence: optimizer steps between the weights that sampled it and those that it changed
    skipped: int  # optimizer steps not taken
    trace: TokenTrace


def train(spec: JobSpec, folder: RunFolder, stop: StopSignal) -> int:
    """Trains to the last step, going on from the folder's newest checkpoint; returns the step.

    Raises SpecError (the user's fault), Stopped (told to, and saved), WeightSyncError, EngineError, NotFiniteError.
    """
    folder.write_phase(0, "loading_model")
    if spec.resources.threads is not None:
        torch.set_num_threads(spec.resources.threads)
    torch.manual_seed(spec.seed)
    rows = load_problems(spec.dataset)
    if any(problem.images for problem in rows):
        raise SpecError("dataset.image_column", "rows with images can be scored and not yet trained on; leave the column out")
    problems, validation = split_problems(rows, spec.dataset.validation_size, spec.seed)
    device = choose_device(spec.resources)
    saved = checkpoint.latest(folder.checkpoints)
    model = spec.model if saved is None else spec.model.model_copy(update={"path": str(saved), "revision": None})
    policy = Policy.load(model, device, spec.rollout.temperature)
    if spec.resources.activation_checkpointing:
        policy.checkpoint_activations()
    reference = load_reference(spec, device)
    learner = Learner(
        policy,
        spec.optimizer,
        Objective.of(spec),
        total_updates=spec.steps * spec.updates_per_batch,
        micro_batch_tokens=spec.resources.micro_batch_tokens,
        reference=reference,
    )
    progress, batches = (Progress(), []) if saved is None else checkpoint.restore(saved, policy, learner)
    if folder.used:
        source = "the model: there is no checkpoint" if saved is None else f"the checkpoint of step {progress.step}"
        folder.write_event(progress.step, "resumed", f"resumed from {source}")
    longest = max(map(len, encode(policy, spec, [*problems, *validation])))
    check_context(policy, longest, spec.rollout.max_new_tokens)
    with Scorer(spec.rewards) as scorer:
        scorer.check_answers([*problems, *validation], "dataset.answer_column", spec.dataset.path)
        with stop.interruptible():
            sampler = open_sampler(
                spec.rollout.engine,
                model,
                policy.tokenizer,
                max_model_len=max(longest + spec.rollout.max_new_tokens, PROBE_TOKENS + 1),
                concurrency=spec.rollout.prompts_per_step * spec.rollout.group_size,
                device=device,
                resources=spec.resources,
            )
        try:
            order = ProblemOrder(problems, shuffle=spec.dataset.shuffle, seed=spec.seed)
            probe = WeightProbe(policy, spec.model.dtype)
            run = Run(
                spec,
                folder,
                policy,
                reference,
                learner,
                sampler,
                probe,
                scorer,
                order,
                validation,
                stop,
                progress,
                queue=RolloutQueue(spec.rollout.staleness, spec.steps, batches),
                kept=SamplingWeights(policy) if spec.rollout.staleness else None,
            )
            loop(run)
        finally:
            sampler.close()
    return run.progress.step


def loop(run: Run) -> None:
    """Steps until the last; when told to stop, saves the last finished step and raises Stopped."""
    try:
        while run.progress.step < run.spec.steps:
            run.stop.check()
            named_step(run, run.progress.step + 1)
    except Stopped:  # raised only where weights and progress are those of the last finished step
        if run.progress.step > 0:
            save(run)
        raise


def named_step(run: Run, step: int) -> None:
    """`one_step`; raises NotFiniteError that names the step."""
    try:
        one_step(run, step)
    except NotFiniteError as error:
        message = f"step {step}: {error}"
        run.folder.write_event(step, "not_finite", message, level="error")
        raise NotFiniteError(message) from error


def one_step(run: Run, step: int) -> None:
    """One rollout batch: sampled, scored, learnt from, written down, saved where due."""
    spec, clock = run.spec, StepClock()
    with clock.part("sync"):
        sync(run, step)
    run.folder.write_phase(step, "rollout")
    with clock.part("rollout"), run.stop.interruptible():
        ask(run, step)
    batch = run.queue.of_step(step)
    run.folder.write_phase(step, "rewards")
    with clock.part("rewards"), run.stop.interruptible():
        groups = score(run, batch.order.problems, batch.completions)
    with clock.part("rollout"), run.stop.interruptible():
        groups = replace_zero_variance(run, groups, step)
    with clock.part("rewards"):
        shaped = shape(groups, spec, run.reference)
        groups = shaped.groups
    run.folder.write_phase(step, "learning")
    with clock.part("learner"):
        learnt = learn(run, step, groups, batch.order.version)
    with clock.part("rollout"):
        if run.queue.pending:
            collect(run)

    run.queue.remove(step)
    tokens = sum(len(c.token_ids) for group in groups for c in group.completions)
    position, num_tokens = run.progress.position + len(groups), run.progress.num_tokens + tokens
    progress = Progress(step, position, num_tokens, run.progress.skipped + learnt.skipped)
    metrics = rollout_metrics(groups, grader_names(spec.rewards))
    metrics |= learner_metrics(learnt.updates, learnt.record, spec.algorithm) | lag_metrics(learnt.lags)
    metrics |= shaped.metrics | zero_variance_metrics(groups, spec.rollout.prompts_per_step)
    metrics |= {"sampling/probe_difference": run.probe_difference, "num_tokens": float(num_tokens)}
    metrics |= {"skipped_updates": float(progress.skipped)}
    due = step == spec.steps or step % spec.checkpoints.every == 0
    if due and run.validation:
        metrics |= validate(run, step)
        progress = replace(progress, validation_reward=metrics["eval/reward"])
    report_grading(run, step, groups)
    run.folder.write_samples(step, groups, trace_lines(run, learnt.trace))
    run.folder.write_metrics(step, metrics | {"perf/memory_peak_mb": peak_memory_mb(run.policy.device)} | clock.metrics(tokens))
    run.progress = progress
    if due:
        save(run)


def sync(run: Run, step: int) -> None:
    """Gives the sampler the learner's weights, where they have changed, and proves that it has them."""
    if run.synced != run.learner.updates:
        run.folder.write_phase(step, "weight_push")
        run.sampler.push_weights(run.policy.weights(), run.learner.updates)
        run.probe_difference = run.probe.check(run.sampler)
        run.synced = run.learner.updates
        if run.kept is not None:
            run.kept.keep()


def ask(run: Run, step: int) -> None:
    """Has the present weights sample every batch that is theirs; the last goes on while the learner trains on an older one."""
    for due in run.queue.due(step):
        position = run.progress.position + run.queue.problems_waiting()
        problems = tuple(run.order.take(position, run.spec.rollout.prompts_per_step))
        run.queue.ask(Order(due, run.progress.step, run.learner.updates, problems))
        run.sampler.start(requests(run, problems, due), sampling(run.spec))
        if due < step + run.spec.rollout.staleness or due == step:
            collect(run)


def collect(run: Run) -> None:
    """Waits for what the sampler was asked for, and takes it in."""
    order, completions = run.queue.pending, run.sampler.finish()
    assert order is not None
    if run.kept is not None:
        with run.kept.in_place():
            completions = with_old_logprobs(run, order, completions)
    run.queue.fill(completions)


def with_old_logprobs(run: Run, order: Order, completions: Sequence[tuple[Completion, ...]]) -> list[tuple[Completion, ...]]:
    """The completions with the log-probabilities of the weights that the policy has just now: those that sampled them."""
    prompts = encode(run.policy, run.spec, order.problems)
    sequences = [
        TrainSequence(prompt, completion.token_ids, completion.sampler_logprobs, advantage=0.0)
        for prompt, group in zip(prompts, completions, strict=True)
        for completion in group
    ]
    rows = iter(run.learner.logprobs(sequences))
    return [tuple(replace(c, old_logprobs=tuple(next(rows).tolist())) for c in group) for group in completions]


def requests(
    run: Run, problems: Sequence[Problem], step: int, group_size: int | None = None, first_sample: int = 0
) -> list[SampleRequest]:
    """The prompt of each problem, and of each sample a seed of its own: those of `first_sample` and the following."""
    size = run.spec.rollout.group_size if group_size is None else group_size
    return [
        SampleRequest(ids, tuple(sample_seed(run.spec.seed, step, problem.index, first_sample + i) for i in range(size)))
        for problem, ids in zip(problems, encode(run.policy, run.spec, problems), strict=True)
    ]


def sampling(spec: JobSpec) -> SamplingSettings:
    """How training and validation completions are drawn."""
    return SamplingSettings(spec.rollout.max_new_tokens, spec.rollout.temperature, spec.rollout.top_p, spec.rollout.stop)


def score(run: Run, problems: Sequence[Problem], completions: Sequence[tuple[Completion, ...]]) -> list[RolloutGroup]:
    """The groups with their rewards; advantages come when the step's groups are complete."""
    scores = iter(run.scorer.score([(p, c) for p, group in zip(problems, completions, strict=True) for c in group]))
    prompts = encode(run.policy, run.spec, problems)
    groups = []
    for problem, ids, group in zip(problems, prompts, completions, strict=True):
        own = tuple(next(scores) for _ in group)
        groups.append(RolloutGroup(problem, ids, group, own, advantages=()))
    return groups


def replace_zero_variance(run: Run, groups: list[RolloutGroup], step: int) -> list[RolloutGroup]:
    """The groups and, where the spec asks for it, those of further problems in place of the ones without a signal."""
    settings, wanted = run.spec.advantages.zero_variance, len(groups)
    if not isinstance(settings, ResampleZeroVariance):
        return groups

    def draw(drawn: int, count: int) -> list[RolloutGroup]:
        problems = run.order.take(run.progress.position + drawn, count)
        # Other seeds than any before: in a small dataset one step may draw a problem again.
        asked = requests(run, problems, step, first_sample=drawn * run.spec.rollout.group_size)
        return score(run, problems, run.sampler.generate(asked, sampling(run.spec)))

    every = resample(groups, settings, draw)
    if (found := sum(map(has_signal, every))) < wanted:
        message = f"{len(every)} problems drawn, and only {found} of {wanted} groups have rewards that differ"
        data = {"drawn": len(every), "groups": found, "wanted": wanted}
        run.folder.write_event(step, "warning", message, level="warn", data=data)
    return every


def learn(run: Run, step: int, groups: Sequence[RolloutGroup], version: int) -> Learnt:
    """The batch's optimizer steps. A part of it in which no completion could be graded is passed over.

    `version`: optimizer steps that the weights had seen which sampled the batch. Raises NotFiniteError where a part is not
    finite and the spec does not let it be passed over.
    """
    groups = trained(groups, run.spec.advantages, run.spec.overlong)
    learnt = Learnt([], TokenRecord(), [], 0, TokenTrace(groups, run.spec.samples.tokens))
    parts_count = run.spec.updates_per_batch // run.spec.epochs_per_batch
    parts = [sequences for part in updates(groups, parts_count) if (sequences := trainable(part))]
    one_epoch = list(zip(parts, old_logprobs(run, parts), strict=True))
    for number, (sequences, old) in enumerate(one_epoch * run.spec.epochs_per_batch, start=1):
        lag, seen = run.learner.updates - version, TokenRecord()
        try:
            learnt.updates.append(run.learner.update(sequences, old, seen))
        except NotFiniteError as error:
            learnt = replace(learnt, skipped=learnt.skipped + 1)
            path = dump(run, step, number, sequences, old)
            total = run.progress.skipped + learnt.skipped
            if total > run.spec.optimizer.max_skipped_updates:
                raise NotFiniteError(f"{error}; its batch is in {path}") from error
            data = {"update": number, "path": path, "skipped_updates": total}
            run.folder.write_event(step, "not_finite", f"{error}; its batch is in {path}", level="warn", data=data)
        else:
            learnt.record.extend(seen)
            learnt.trace.add(sequences, seen, run.spec.resources.micro_batch_tokens)
            learnt.lags.extend([lag] * len(sequences))
    return learnt


def trace_lines(run: Run, trace: TokenTrace) -> TraceOf:
    """What the samples file holds of a completion's tokens."""

    def line(group: RolloutGroup, completion: Completion) -> dict[str, Any] | None:
        traced = trace.of(group, completion)
        if traced is None:
            return None
        return {"text": pieces(traced.token_ids, run.policy.tokenizer.decode), **traced.values}

    return line


def old_logprobs(run: Run, parts: Sequence[Sequence[TrainSequence]]) -> list[list[Tensor] | None]:
    """The old policy's log-probabilities of each part: the weights that sampled it. None: the first update's own will do."""
    if run.kept is not None:
        return [[torch.tensor(sequence.old_logprobs) for sequence in sequences] for sequences in parts]
    # Before the first update changes anything.
    again = run.spec.epochs_per_batch > 1
    return [run.learner.logprobs(sequences) if number > 0 or again else None for number, sequences in enumerate(parts)]


def dump(run: Run, step: int, number: int, sequences: Sequence[TrainSequence], old: Sequence[Tensor] | None) -> str:
    """Writes the sequences of an update that was not taken, with the policy's log-probabilities; returns the file's path."""
    logprobs = [row.tolist() for row in run.learner.logprobs(sequences)]
    before = logprobs if old is None else [row.tolist() for row in old]
    return write_failure(run.folder.path, step, number, sequences, logprobs, before)


def lag_metrics(lags: Sequence[int]) -> dict[str, float]:
    """How far the weights had moved on when a sequence was trained on; empty where nothing was."""
    return {"off_policy/lag/mean": fmean(lags), "off_policy/lag/max": float(max(lags))} if lags else {}


def validate(run: Run, step: int) -> dict[str, float]:
    """One completion of each held-out problem, by the weights of this step."""
    run.folder.write_phase(step, "evaluating")
    sync(run, step)
    completions = run.sampler.generate(requests(run, run.validation, VALIDATION_STEP, group_size=1), sampling(run.spec))
    scores = run.scorer.score([(p, c) for p, (c,) in zip(run.validation, completions, strict=True)])
    rewards = [s.reward for s in scores if not s.errors]
    lengths = length_metrics([c for (c,) in completions])
    return {"eval/reward": sum(rewards) / max(1, len(rewards))} | {f"eval/{name}": value for name, value in lengths.items()}


def report_grading(run: Run, step: int, groups: Sequence[RolloutGroup]) -> None:
    """One event for each grader that failed in this step, with its first error."""
    failed: dict[str, list[str]] = {}
    for group in groups:
        for one in group.scores:
            for name, error in one.errors.items():
                failed.setdefault(name, []).append(error)
    for name, errors in failed.items():
        run.folder.write_event(
            step,
            "grader_error",
            f"grader {name!r} failed on {len(errors)} completions, which are left out of the loss; the first: {errors[0]}",
            level="warn",
            data={"grader": name, "count": len(errors)},
        )


def save(run: Run) -> None:
    """A checkpoint of the present step, unless it is there; then the old ones go, but not those that are to be evaluated.

    What the sampler is working on is not in it: the weights that are saved sample it again. Raises NotFiniteError rather
    than save weights that give no log-probabilities.
    """
    spec, step = run.spec, run.progress.step
    latest = checkpoint.latest(run.folder.checkpoints)
    if latest is not None and checkpoint.step_of(latest) == step:
        return
    run.probe.own_logprobs()
    run.folder.write_phase(step, "checkpointing")
    run.folder.sync()
    path = checkpoint.save(run.folder.checkpoints, run.policy, run.learner, run.progress, run.queue.batches)
    data = {"step": step, "path": str(path.relative_to(run.folder.path)), "final": step == spec.steps}
    data |= {"validation_reward": run.progress.validation_reward}
    run.folder.write_event(step, "checkpoint", f"checkpoint of step {step} saved", data=data)
    best = mark_best(run, step)
    removed = checkpoint.prune(run.folder.checkpoints, spec.checkpoints.keep, spare=[*evaluated_steps(spec), *best])
    if removed:
        run.folder.write_event(step, "checkpoints_removed", f"removed steps {removed}", data={"steps": removed})


def mark_best(run: Run, step: int) -> list[int]:
    """The step of the checkpoint with the highest validation reward, which best_checkpoint.json names; none without any."""
    found = checkpoint.best(run.folder.checkpoints)
    if found is None:
        return []
    best, reward = found
    write_atomically(run.folder.path / "best_checkpoint.json", json.dumps({"step": best, "validation_reward": reward}))
    if best == step:
        run.folder.write_event(step, "best_checkpoint", f"the best yet: validation reward {reward:.4g}", data={"step": step})
    return [best]


def evaluated_steps(spec: JobSpec) -> range:
    """The steps whose checkpoints are to be evaluated."""
    if not spec.evaluation.benchmarks or spec.evaluation.every is None:
        return range(0)
    every = spec.checkpoints.every * spec.evaluation.every
    return range(every, spec.steps + 1, every)


def check_context(policy: Policy, longest: int, max_new_tokens: int) -> None:
    """Raises SpecError where the longest prompt, in tokens, and a completion do not fit the model's context."""
    context = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)  # some models have no limit
    if context is not None and longest + max_new_tokens > context:
        raise SpecError(
            "rollout.max_new_tokens",
            f"the longest prompt has {longest} tokens, and {max_new_tokens} more do not fit the model's context of {context}; "
            f"at most {context - longest} would",
        )


def encode(policy: Policy, spec: JobSpec, problems: Sequence[Problem]) -> list[tuple[int, ...]]:
    """The problems' prompts as token ids."""
    return encode_prompts(
        policy.tokenizer,
        problems,
        chat_template=spec.dataset.chat_template,
        system_prompt=spec.dataset.system_prompt,
    )

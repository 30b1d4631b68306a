"""The job spec: everything that decides what a run computes. Torch-free, strict, frozen.

The same document is POSTed to the API, written to `config.json` in the run folder and given to `python -m trainer`.
`check_sources` looks at what the spec points to (files, columns); parsing alone touches nothing outside.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.algorithm_config import Algorithm, Luspo, Mhpo
from trainer.grader_config import (
    ChoiceGrader,
    FormatGrader,
    GraderBase,
    HttpGrader,
    InputTemplate,
    JsonSchemaGrader,
    MultiBase,
    PythonGrader,
    ReferenceTemplate,
    TextSimilarityGrader,
)
from trainer.objective_config import (
    Advantages,
    Correction,
    KeepOverlong,
    Kl,
    Loss,
    NoKl,
    Overlong,
    ResampleZeroVariance,
    SoftPunishment,
    TruncateCorrection,
)
from trainer.strict import Count, Listed, NonNegative, Positive, SpecError, Strict


class Model(Strict):
    """The model to train: a folder in Hugging Face format, or a hub id with an optional revision."""

    path: Annotated[str, Field(min_length=1, description="Folder of a Hugging Face causal language model, or a hub id")]
    revision: Annotated[str | None, Field(pattern=r"^[\w./-]+$", description="Branch, tag or commit of a hub id")] = None
    dtype: Annotated[
        Literal["float32", "bfloat16"], Field(description="Type of weights and activations, learner and engine")
    ] = "float32"


class Dataset(Strict):
    """Problems with their answers: JSONL or parquet on disk, an uploaded file, or a hub id."""

    path: Annotated[str, Field(min_length=1, description="JSONL or parquet file, uploaded file id (file-...), or a hub id")]
    revision: Annotated[str | None, Field(description="Branch, tag or commit of a hub id")] = None
    subset: Annotated[str | None, Field(description="Configuration of a hub id that has several")] = None
    split: Annotated[str, Field(description="Split of a hub id")] = "train"
    problem_column: Annotated[str, Field(description="Column with the problem's text")] = "problem"
    answer_column: Annotated[str, Field(description="Column with the answer that graders compare with")] = "answer"
    answer_after: Annotated[
        str | None,
        Field(min_length=1, description="The answer is what follows the last of these in its column; GSM8K's is ####"),
    ] = None
    choices_column: Annotated[str | None, Field(description="Column with the list of a problem's options")] = None
    image_column: Annotated[
        str | None, Field(description="Column with an image or a list: path from the file's folder on, URL, or bytes")
    ] = None
    prompt_template: Annotated[
        str, Field(description="The prompt, with {problem} where the problem goes, and {choices} where its options do")
    ] = "{problem}"
    chat_template: Annotated[
        bool, Field(description="Wrap the prompt as one user message in the tokenizer's chat template")
    ] = False
    system_prompt: Annotated[str | None, Field(description="System message; needs chat_template")] = None
    shuffle: Annotated[bool, Field(description="A new order each epoch, made from the job's seed")] = True
    validation_size: Annotated[
        int,
        Field(ge=0, description="Rows held out of training, chosen by the job's seed; every rank and run holds out the same"),
    ] = 0

    @model_validator(mode="after")
    def _prompt_is_complete(self) -> "Dataset":
        if "{problem}" not in self.prompt_template:
            raise ValueError("prompt_template must contain {problem}")
        if self.system_prompt is not None and not self.chat_template:
            raise ValueError("system_prompt needs chat_template = true")
        return self


class Rollout(Strict):
    """How completions are sampled. A step samples `prompts_per_step` x `group_size` completions."""

    engine: Annotated[Literal["vllm", "transformers"], Field(description="Asking for one never gives the other")] = "vllm"
    prompts_per_step: Annotated[Count, Field(le=65_536, description="Problems a step")] = 16
    group_size: Annotated[
        int, Field(ge=2, le=4096, description="Completions of one prompt; the advantage needs at least 2")
    ] = 8
    max_new_tokens: Annotated[Count, Field(le=1_048_576, description="A completion is cut here")] = 512
    temperature: Annotated[Positive, Field(description="The learner's log-probabilities are taken at it too")] = 1.0
    top_p: Annotated[
        float, Field(gt=0, le=1, description="Samples from the likeliest tokens of this mass; the learner knows nothing of it")
    ] = 1.0
    stop: Annotated[
        Listed[tuple[Annotated[str, Field(min_length=1)], ...]],
        Field(description="Strings that end a completion, besides the end token"),
    ] = ()
    staleness: Annotated[
        int,
        Field(ge=0, description="A step trains on what the weights of so many steps before sampled; rollouts go on meanwhile"),
    ] = 0


class Optimizer(Strict):
    """AdamW and its learning-rate schedule over the job's optimizer steps."""

    lr: Annotated[Positive, Field(description="Highest learning rate")] = 1e-6
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], Field(description="After the warm-up, over all of the job's optimizer steps")
    ] = "constant"
    warmup_steps: Annotated[int, Field(ge=0, description="Planned optimizer steps from 0 up to lr")] = 0
    final_lr_fraction: Annotated[float, Field(ge=0, le=1, description="Where linear and cosine end, as a fraction of lr")] = 0.0
    betas: Listed[tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]] = (0.9, 0.999)
    eps: Annotated[Positive, Field(description="AdamW's")] = 1e-8
    weight_decay: Annotated[NonNegative, Field(description="Decoupled, as in AdamW")] = 0.0
    max_grad_norm: Annotated[Positive | None, Field(description="Gradients are scaled down to this norm; null for never")] = 1.0
    max_skipped_updates: Annotated[
        int,
        Field(
            ge=0,
            description="How many optimizer steps of the run may be passed over because loss, gradient or log-probabilities "
            "are not finite; at the next one, and at 0 at the first, the run stops",
        ),
    ] = 0


class MathGrader(GraderBase):
    """1 where the last \\boxed{} of the completion equals the answer mathematically, else 0."""

    type: Literal["math"] = "math"
    timeout: Annotated[float, Field(gt=0, le=60, description="Seconds a completion may take; then it counts as an error")] = 2.0
    unboxed: Annotated[
        bool, Field(description="Without a box, what `Answer: 5`, `the answer is 5`, `option C` or `#### 5` says is the answer")
    ] = False


class ExactGrader(GraderBase):
    """1 where the completion is the answer, white space around both removed, else 0."""

    type: Literal["exact"] = "exact"


class StringCheckGrader(GraderBase):
    """1 where the completion relates to the answer as `operation` says: eq, ne, like (contains), ilike (without case)."""

    type: Literal["string_check"] = "string_check"
    operation: Literal["eq", "ne", "like", "ilike"] = "eq"
    input: InputTemplate = None
    reference: ReferenceTemplate = None


class RegexGrader(GraderBase):
    """1 where `pattern` is found in the completion (`mode` search) or matches all of it (`mode` fullmatch), else 0."""

    type: Literal["regex"] = "regex"
    pattern: Annotated[str, Field(min_length=1)]
    mode: Literal["search", "fullmatch"] = "search"

    @model_validator(mode="after")
    def _pattern_compiles(self) -> "RegexGrader":
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:  # nested too deeply; a count beyond the engine's
            raise ValueError(f"pattern is no regular expression: {error}") from error
        return self


class LengthGrader(GraderBase):
    """1 up to `target` completion tokens, then falling linearly to 0 at `limit`."""

    type: Literal["length"] = "length"
    target: Count
    limit: Count

    @model_validator(mode="after")
    def _limit_above_target(self) -> "LengthGrader":
        if self.limit <= self.target:
            raise ValueError(f"limit must be above target = {self.target}")
        return self


SingleGrader = Annotated[
    MathGrader
    | ChoiceGrader
    | ExactGrader
    | StringCheckGrader
    | RegexGrader
    | TextSimilarityGrader
    | FormatGrader
    | LengthGrader
    | JsonSchemaGrader
    | HttpGrader
    | PythonGrader,
    Field(discriminator="type"),
]


class MultiGrader(MultiBase):
    """A formula over the scores of named graders, whose weights do not count; where one of them fails, so does this."""

    graders: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,63}$")], SingleGrader],
        Field(min_length=1, description="By the name that the formula knows each by"),
    ]


Grader = Annotated[SingleGrader | MultiGrader, Field(discriminator="type")]


class Checkpoints(Strict):
    """When the run is saved. The last step is always saved, and so is a run that is asked to stop."""

    every: Annotated[Count, Field(description="Steps between checkpoints")] = 20
    keep: Annotated[
        Count,
        Field(
            description="How many of the newest stay; the last step, those to be evaluated and the best by validation do too"
        ),
    ] = 3


class Samples(Strict):
    """What is kept of the rollouts beside text and rewards, to be read by people."""

    tokens: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="Completion tokens a step, of the first prompts, that are kept one by one with log-ratio and weight",
        ),
    ] = 1024


class Evaluation(Strict):
    """Scores of the base model and of checkpoints, on the evaluator's own queue; they never hold the run up."""

    benchmarks: Annotated[
        Listed[tuple[str, ...]],
        Field(description="Names from GET /v1/benchmarks, or JSONL files: paths, or ids of uploads"),
    ] = ()
    every: Annotated[Count | None, Field(description="Checkpoints between evaluations; null: only the final one")] = None
    base: Annotated[bool, Field(description="Score the model before training too")] = True
    samples: Annotated[Count | None, Field(description="Completions a problem; null: each benchmark's own number")] = None
    max_problems: Annotated[Count | None, Field(description="Only the first so many problems of each benchmark")] = None
    temperature: Annotated[NonNegative | None, Field(description="null: each benchmark's own")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="null: each benchmark's own")] = None
    max_new_tokens: Annotated[Count | None, Field(description="Default: as in rollout")] = None


class Resources(Strict):
    """What the run may use of the machine."""

    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: cuda where there is one")] = "auto"
    gpus: Annotated[
        int, Field(ge=1, le=64, description="GPUs of one machine that the run has to itself; the engine uses the first")
    ] = 1
    learners: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Processes that share each optimizer step, each with all weights; on a GPU machine at most `gpus`, one "
            "GPU each",
        ),
    ] = 1
    threads: Annotated[
        Count | None, Field(description="CPU threads of a learner; null: PyTorch's own choice, shared by the learners")
    ] = None
    micro_batch_tokens: Annotated[
        Count, Field(description="Prompt and completion tokens in one forward and backward pass, at most")
    ] = 16384
    activation_checkpointing: Annotated[
        bool, Field(description="Make activations again in the backward pass: less memory, about a third more arithmetic")
    ] = False
    engine_memory_fraction: Annotated[
        float, Field(gt=0, lt=1, description="Share of a GPU's memory for the vLLM engine; it shares the GPU with the learner")
    ] = 0.35
    engine_sleeps: Annotated[
        bool, Field(description="The vLLM engine gives a GPU's memory back while the learner works: docs/deployment.md")
    ] = False
    engine_timeout: Annotated[
        Positive,
        Field(
            description="Seconds without a sign of life from a vLLM engine at work; then it counts as hung, and the run fails"
        ),
    ] = 900.0
    kv_cache_mb: Annotated[Count, Field(description="KV cache of the vLLM engine on a CPU, MiB")] = 256

    @model_validator(mode="after")
    def _a_gpu_each(self) -> "Resources":
        if self.device == "cuda" and self.learners > self.gpus:
            raise ValueError(f"learners = {self.learners} want a GPU each, and gpus = {self.gpus}")
        return self


class JobSpec(Strict):
    """One reinforcement-learning run."""

    name: Annotated[str | None, Field(max_length=64, description="For people; need not be unique")] = None
    priority: Annotated[
        int,
        Field(ge=-100, le=100, description="In the service's queue: higher goes first, then older; changes nothing computed"),
    ] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Of the order of problems, the held-out rows and every sample")] = 0
    steps: Annotated[Count, Field(le=10_000_000, description="Rollout batches to train on")] = 100
    updates_per_batch: Annotated[Count, Field(description="Optimizer steps a rollout batch, those of all epochs together")] = 1
    epochs_per_batch: Annotated[
        Count,
        Field(
            description="Passes over each batch; each is cut by whole groups into updates_per_batch / epochs_per_batch parts"
        ),
    ] = 1
    max_drift: Annotated[
        Positive | None,
        Field(
            description="Nats: a batch's further updates are left out once the mean |log ratio| since its first one is above "
            "this; docs/off-policy.md. null: never"
        ),
    ] = None
    model: Model
    dataset: Dataset
    algorithm: Algorithm = Mhpo()
    loss: Loss = Loss()
    advantages: Advantages = Advantages()
    overlong: Annotated[Overlong, Field(description="What is done with completions near or at rollout.max_new_tokens")] = (
        KeepOverlong()
    )
    kl: Annotated[Kl, Field(description="Distance from the base model, kept in the loss or in the reward")] = NoKl()
    correction: Annotated[
        Correction, Field(description="Of the difference between sampler and learner: docs/off-policy.md")
    ] = TruncateCorrection()
    rollout: Rollout = Rollout()
    optimizer: Optimizer = Optimizer()
    rewards: Annotated[Listed[tuple[Grader, ...]], Field(min_length=1)] = (MathGrader(),)
    checkpoints: Checkpoints = Checkpoints()
    samples: Samples = Samples()
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _parts_fit(self) -> "JobSpec":
        parts, rest = divmod(self.updates_per_batch, self.epochs_per_batch)
        if rest:
            raise ValueError(
                f"updates_per_batch = {self.updates_per_batch} must be a multiple of epochs_per_batch = {self.epochs_per_batch}"
            )
        if parts > self.rollout.prompts_per_step:
            raise ValueError(
                f"updates_per_batch = {self.updates_per_batch} cuts each pass over a batch into {parts} parts by whole groups, "
                f"so there can be at most rollout.prompts_per_step = {self.rollout.prompts_per_step}"
            )
        if isinstance(self.overlong, SoftPunishment) and self.overlong.buffer > self.rollout.max_new_tokens:
            raise ValueError(
                f"overlong.buffer = {self.overlong.buffer} is more than rollout.max_new_tokens = {self.rollout.max_new_tokens}"
            )
        if isinstance(self.algorithm, Luspo) and self.loss.aggregation != "sequence_mean_token_mean":
            raise ValueError(
                f"luspo has the length in its loss: loss.aggregation = {self.loss.aggregation} would count it twice"
            )
        if self.rollout.staleness and isinstance(self.advantages.zero_variance, ResampleZeroVariance):
            raise ValueError("advantages.zero_variance resample draws with the weights of the step: set rollout.staleness = 0")
        if self.resources.engine_sleeps:
            found = (self.rollout.engine, self.rollout.staleness, self.resources.device)
            if found[:2] != ("vllm", 0) or found[2] == "cpu":
                raise ValueError(
                    f"resources.engine_sleeps is for vllm, staleness 0 and a GPU; engine, staleness, device: {found}"
                )
        names = grader_names(self.rewards)
        if len(set(names)) < len(names):
            raise ValueError(f"rewards: two graders have one name ({', '.join(names)}); give each its own `name`")
        return self


def grader_names(graders: tuple[Any, ...]) -> list[str]:
    """The name of each grader in metrics: its own, else its type."""
    return [grader.name or grader.type for grader in graders]


def load_spec(path: Path) -> JobSpec:
    """The spec in a TOML or JSON file; relative paths in it are relative to the working directory."""
    return JobSpec.parse(read_document(path))


def read_document(path: Path) -> Any:
    """A TOML (`.toml`) or JSON document; raises SpecError that names the file."""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise SpecError(None, f"cannot read {path}: {error}") from error

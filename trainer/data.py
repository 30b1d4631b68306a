"""Reading problems and ordering them. Torch-free: the API checks a spec's sources with the same code.

Every fault is a SpecError whose `param` is the place in the spec and whose message names the file, line or column.
"""

import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Protocol

from trainer.config import JobSpec, Model
from trainer.row_columns import Row, is_json, row_choices, row_images
from trainer.strict import SpecError
from trainer.types import Problem

HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")  # "./x" and "../x" are paths
DATA_SUFFIXES = {".jsonl", ".json", ".parquet"}
PICKLED_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}  # of weights that can run code when they are loaded


class Source(Protocol):
    """Where problems come from: a job's dataset or a benchmark."""

    @property
    def path(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def subset(self) -> str | None: ...
    @property
    def split(self) -> str: ...
    @property
    def problem_column(self) -> str: ...
    @property
    def answer_column(self) -> str: ...
    @property
    def answer_after(self) -> str | None: ...
    @property
    def choices_column(self) -> str | None: ...
    @property
    def image_column(self) -> str | None: ...
    @property
    def prompt_template(self) -> str: ...


def check_sources(spec: JobSpec, rows: int = 1000) -> None:
    """Raises SpecError where the model or the first `rows` rows of the dataset cannot be used; hub ids are not looked up."""
    check_model(spec.model)
    if is_local(spec.dataset.path):
        problems = list(islice(iter_problems(spec.dataset, "dataset"), rows))
        if len(problems) <= spec.dataset.validation_size and len(problems) < rows:
            raise SpecError(
                "dataset.validation_size",
                f"{spec.dataset.validation_size} rows are held out, and {spec.dataset.path} has only {len(problems)}",
            )


def check_model(model: Model, param: str = "model.path") -> None:
    """Raises SpecError unless `model.path` is a folder with a Hugging Face model, or reads as a hub id."""
    folder = Path(model.path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise SpecError(param, f"{model.path!r} has no config.json; it must be a folder in Hugging Face format")
        _check_weights(folder, param)
    elif not HUB_ID.fullmatch(model.path):
        raise SpecError(param, f"no folder {model.path!r}, and it is not a hub id (owner/name)")


def _check_weights(folder: Path, param: str) -> None:
    """Only safetensors are loaded: a pickle can run anything, and an adapter names another model to load."""
    if (folder / "adapter_config.json").exists():
        raise SpecError(param, f"{str(folder)!r} is an adapter (adapter_config.json); merge it into its base model first")
    files = sorted(file.name for file in folder.iterdir())
    pickled = [name for name in files if Path(name).suffix in PICKLED_SUFFIXES]
    if pickled and not any(name.endswith(".safetensors") for name in files):
        raise SpecError(
            param, f"{str(folder)!r} has weights as pickle only ({pickled[0]}), which can run code; save them as safetensors"
        )


def is_local(path: str) -> bool:
    """True for a file; False for a hub id. A name that ends as data files do is a file, there or not."""
    return Path(path).exists() or Path(path).suffix in DATA_SUFFIXES or not HUB_ID.fullmatch(path)


def load_problems(source: Source, param: str = "dataset") -> list[Problem]:
    """All problems of a source, in its order."""
    return list(iter_problems(source, param))


def split_problems(problems: Sequence[Problem], validation_size: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(training, validation): `validation_size` rows drawn by the seed are held out; both keep the source's order."""
    if validation_size >= len(problems):
        raise SpecError("dataset.validation_size", f"{validation_size} rows are held out of only {len(problems)}")
    held_out = set(Random(f"validation/{seed}").sample(range(len(problems)), validation_size))
    return (
        [problem for i, problem in enumerate(problems) if i not in held_out],
        [problem for i, problem in enumerate(problems) if i in held_out],
    )


class ProblemOrder:
    """The endless sequence of training problems: each epoch is one permutation, made from seed and epoch alone.

    Being a pure function of the position, it needs no state: a resumed run takes position = problems already drawn.
    """

    def __init__(self, problems: Sequence[Problem], *, shuffle: bool, seed: int) -> None:
        self._problems = problems
        self._shuffle = shuffle
        self._seed = seed

    def take(self, position: int, count: int) -> list[Problem]:
        """Problems position .. position + count - 1 of the sequence."""
        return [self._at(i) for i in range(position, position + count)]

    def _at(self, position: int) -> Problem:
        epoch, offset = divmod(position, len(self._problems))
        order = (
            _permutation(len(self._problems), f"order/{self._seed}/{epoch}") if self._shuffle else range(len(self._problems))
        )
        return self._problems[order[offset]]


@lru_cache(maxsize=2)
def _permutation(size: int, seed: str) -> list[int]:
    order = list(range(size))
    Random(seed).shuffle(order)
    return order


def iter_problems(source: Source, param: str) -> Iterator[Problem]:
    """Problems one by one; the two columns must be there and hold text (numbers are written out)."""
    empty = True
    for index, row in enumerate(iter_rows(source, param)):
        empty = False
        where = f"row {index + 1} of {source.path}"
        choices = row_choices(row, source.choices_column, f"{param}.choices_column", where)
        yield Problem(
            id=str(row.get("id", index)),
            index=index,
            prompt=render_prompt(
                source.prompt_template, _text(row, source.problem_column, f"{param}.problem_column", where), choices
            ),
            answer=_answer(source, row, param, where),
            choices=choices,
            images=row_images(row, source.image_column, Path(source.path).parent, f"{param}.image_column", where),
            item={name: value for name, value in row.items() if is_json(value)},
        )
    if empty:
        raise SpecError(f"{param}.path", f"{source.path} has no rows")


def render_prompt(template: str, problem: str, choices: Sequence[str] = ()) -> str:
    """The template with the problem, and the options where it has a place for them: `(A) 30`, a line each."""
    lines = "".join(f"\n({chr(ord('A') + number)}) {choice}" for number, choice in enumerate(choices))
    return template.replace("{choices}", lines).replace("{problem}", problem)


def _answer(source: Source, row: Row, param: str, where: str) -> str:
    answer = _text(row, source.answer_column, f"{param}.answer_column", where)
    if source.answer_after is None:
        return answer
    _, found, answer = answer.rpartition(source.answer_after)
    if not found or not answer.strip():
        raise SpecError(f"{param}.answer_after", f"the answer of {where} has nothing after {source.answer_after!r}")
    return answer.strip()


def _text(row: Row, column: str, param: str, where: str) -> str:
    if column not in row:
        raise SpecError(param, f"{where} has no column {column!r}; {_near(column, row)}")
    value = row[column]
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
        raise SpecError(param, f"{where}: {column!r} is not text: {value!r:.80}")
    return str(value)


def _near(column: str, row: Row) -> str:
    near = get_close_matches(column, row, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, row))}"


def iter_rows(source: Source, param: str) -> Iterator[Row]:
    """Rows of a JSONL or parquet file or of a hub dataset."""
    path = Path(source.path)
    if not is_local(source.path):
        return _hub_rows(source, param)
    if not path.is_file():
        raise SpecError(f"{param}.path", f"no file {source.path!r}")
    return _parquet_rows(path, param) if path.suffix == ".parquet" else _jsonl_rows(path, param)


def _jsonl_rows(path: Path, param: str) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _json_object(line, f"line {number} of {path}", param)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{param}.path", f"cannot read {path}: {error}") from error


def _json_object(line: str, where: str, param: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{param}.path", f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise SpecError(f"{param}.path", f"{where} is not a JSON object: {line.strip():.80}")
    return row


def _parquet_rows(path: Path, param: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise SpecError(f"{param}.path", f"cannot read {path} as parquet: {error}") from error


def _hub_rows(source: Source, param: str) -> Iterator[Row]:
    from datasets import exceptions, load_dataset

    try:
        rows = load_dataset(source.path, source.subset, revision=source.revision, split=source.split)
        yield from _as_files(rows, source.image_column)
    except (OSError, ValueError, exceptions.DatasetsError) as error:
        where = f"{source.path!r} (subset {source.subset or 'default'!r}, split {source.split!r})"
        raise SpecError(f"{param}.path", f"cannot load {where} from the hub: {error}") from error


def _as_files(rows: Any, column: str | None) -> Any:
    """The rows of a hub dataset with images as {"bytes", "path"} instead of decoded."""
    from datasets import Image, List

    kind = rows.features.get(column) if column is not None else None
    if isinstance(kind, Image):
        return rows.cast_column(column, Image(decode=False))
    return rows.cast_column(column, List(Image(decode=False))) if isinstance(kind, List) else rows

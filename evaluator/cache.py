"""Scores kept by what they are a function of: the model's files, the benchmark's rows, how it is asked, sampled and graded."""

import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from evaluator.config import Benchmark, EvaluationSpec
from trainer.config import Model
from trainer.run_folder import write_atomically

FORMAT = 1  # of a cached score; another one is not read
_BLOCK = 1 << 20
_MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, slots=True)
class ScoreCache:
    """The folder `<key>/` holds score.json and rows.jsonl; score.json comes last, so that what has it is whole."""

    folder: Path
    model: str  # model_hash

    def rows(self, key: str) -> Path:
        return self.folder / key / "rows.jsonl"

    def load(self, key: str) -> dict[str, Any] | None:
        """The score kept under the key."""
        file = self.folder / key / "score.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def store(self, key: str, score: dict[str, Any], rows: Path) -> None:
        """Keeps a score with its rows."""
        place = self.folder / key
        place.mkdir(parents=True, exist_ok=True)
        copy = self.rows(key).with_suffix(".unfinished")
        shutil.copyfile(rows, copy)
        copy.replace(self.rows(key))
        write_atomically(place / "score.json", json.dumps(score, ensure_ascii=False))

    def key(self, spec: EvaluationSpec, benchmark: Benchmark, content_hash: str) -> str:
        """Of one benchmark's score; the benchmark's name counts, since the samples' seeds are made from it."""
        asked = benchmark.model_dump(
            mode="json", include={"name", "prompt_template", "chat_template", "system_prompt", "grader", "answer_after"}
        )
        document = {
            "format": FORMAT,
            "model": self.model,
            "dtype": spec.model.dtype,
            "rows": content_hash,
            "asked": asked,
            "sampling": spec.sampling(benchmark).model_dump(mode="json"),
            "stop": spec.stop,
            "seed": spec.seed,
            "engine": spec.engine,
        }
        return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def model_hash(model: Model) -> str:
    """SHA-256 over the names and contents of the model's files; of a hub id, the id at the commit that is loaded."""
    folder = Path(model.path)
    if not folder.is_dir():
        commit = AutoConfig.from_pretrained(model.path, revision=model.revision)._commit_hash
        return f"{model.path}@{commit}"
    digest = sha256()
    for file in sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()

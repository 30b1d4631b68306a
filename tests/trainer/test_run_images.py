from pathlib import Path

import pytest

from trainer.config import JobSpec
from trainer.run_folder import RunFolder
from trainer.stopping import StopSignal
from trainer.strict import SpecError
from trainer.train import train


def test_rows_with_images_are_refused_rather_than_trained_on_blindly(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"x")
    (tmp_path / "rows.jsonl").write_text('{"problem": "?", "answer": "1", "image": "1.png"}\n')
    spec = JobSpec.parse(
        {
            "model": {"path": str(tmp_path)},
            "dataset": {"path": str(tmp_path / "rows.jsonl"), "image_column": "image", "chat_template": True},
        }
    )
    with pytest.raises(SpecError, match="not yet trained on") as error:
        train(spec, RunFolder(tmp_path / "run"), StopSignal())
    assert error.value.param == "dataset.image_column"

"""Rows with images: from the row to the engine."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from transformers import AutoTokenizer

from evaluator.__main__ import run
from evaluator.benchmarks import find_benchmark
from evaluator.problems import benchmark_rows
from tests.evaluator.conftest import Document, write_config
from tests.evaluator.seeing import IMAGE, write_model
from trainer.exits import Exit
from trainer.images import image_bytes
from trainer.prompts import encode_prompts
from trainer.rewards.score import Scorer
from trainer.rollout.vision import can_see
from trainer.stopping import StopSignal
from trainer.strict import SpecError
from trainer.types import Problem

SHARED = Path(__file__).parents[2].parent / "shared" / "benchmarks"


def picture(colour: str) -> bytes:
    content = BytesIO()
    Image.new("RGB", (56, 84), colour).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/red.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(picture("red") if found else b"")

        def log_message(self, *_: object) -> None:
            """Nothing to the test's output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_image_is_a_file_a_url_or_bytes(tmp_path: Path, url: str) -> None:
    red = picture("red")
    (tmp_path / "red.png").write_bytes(red)
    data = "data:image/png;base64," + base64.b64encode(red).decode()
    problem = Problem("a", 0, "?", "1", images=(str(tmp_path / "red.png"), f"{url}/red.png", data, red))
    assert image_bytes(problem, "dataset.image_column") == (red,) * 4


def test_an_image_that_cannot_be_read_is_named_with_its_row(url: str) -> None:
    for image in (f"{url}/blue.png", "/no/such/image.png", "data:image/png;base64,@"):
        with pytest.raises(SpecError, match=r"row 3: the image .* cannot be read") as error:
            image_bytes(Problem("a", 2, "?", "1", images=(image,)), "dataset.image_column")
        assert error.value.param == "dataset.image_column"


@pytest.fixture(scope="session")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeing")
    write_model(folder)
    return folder


def test_images_come_before_the_text_a_token_each(seeing_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(seeing_model)
    problems = [Problem("a", 0, "1+1", "2", images=(b"x", b"y")), Problem("b", 1, "1+2", "3")]
    two, none = encode_prompts(tokenizer, problems, chat_template=True, system_prompt=None)
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    assert (two.count(image), none.count(image)) == (2, 0)
    assert tokenizer.decode(two).endswith("1+1=")
    with pytest.raises(SpecError, match="row 1 has images"):
        encode_prompts(tokenizer, problems, chat_template=False, system_prompt=None)


@pytest.fixture
def seen(seeing_model: Path, tmp_path: Path) -> Document:
    """A spec of the tiny model on three rows with an image and one without."""
    for colour in ("red", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
    images: list[Any] = [
        "red.png",
        ["blue.png", "red.png"],
        None,
        "data:image/png;base64," + base64.b64encode(picture("red")).decode(),
    ]
    rows = [{"problem": "1+1", "answer": "B", "choices": ["1", "2"], "image": image} for image in images]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {
        "name": "seen",
        "path": str(tmp_path / "rows.jsonl"),
        "image_column": "image",
        "choices_column": "choices",
        "chat_template": True,
        "grader": {"type": "choice"},
    }
    return {"model": {"path": str(seeing_model)}, "benchmarks": [entry], "samples": 2, "max_new_tokens": 8}


def test_an_engine_that_cannot_see_refuses_rows_with_images(seen: Document, tmp_path: Path) -> None:
    config = write_config(tmp_path / "evaluation", seen | {"engine": "transformers"})
    assert run(config, StopSignal()) is Exit.USER
    assert "rows with images need engine = 'vllm'" in json.loads((config.parent / "result.json").read_text())["message"]


@pytest.mark.slow
@pytest.mark.skipif(not can_see(), reason="needs torchvision (docs/evaluation.md)")
def test_a_model_that_sees_is_scored_by_vllm_and_answers_by_what_it_sees(seen: Document, tmp_path: Path) -> None:
    texts = []
    for name, colour in (("first", "red"), ("other", "blue")):
        (tmp_path / "red.png").write_bytes(picture(colour))
        config = write_config(tmp_path / name, seen)
        ended = subprocess.run(
            [sys.executable, "-m", "evaluator", str(config)], capture_output=True, text=True, timeout=200, check=False
        )
        assert ended.returncode == Exit.DONE, ended.stderr
        lines = (config.parent / "rows" / "seen.jsonl").read_text().splitlines()
        texts.append([[one["text"] for one in json.loads(line)["completions"]] for line in lines])
    first, other = texts
    assert first[0] != other[0], "another image, the same answer"
    assert first[2:] == other[2:], "what does not show the file that has changed"


@pytest.mark.benchmark_data
@pytest.mark.skipif(not SHARED.exists(), reason=f"needs {SHARED}")
@pytest.mark.parametrize(
    ("name", "file"), [("mathvision", "mathvision100"), ("mathverse", "mathverse100"), ("geometry3k", "geometry3k10")]
)
def test_shared_rows_come_with_images_that_can_be_opened(name: str, file: str) -> None:
    update = {
        "path": str(SHARED / f"{file}.jsonl"),
        "problem_column": "problem",
        "image_column": "image",
        "choices_column": "choices",
    }
    benchmark = find_benchmark(name).model_copy(update=update)
    rows = benchmark_rows(benchmark, "benchmarks.0")
    for problem in rows.problems:
        (content,) = image_bytes(problem, "benchmarks.0.image_column")
        assert min(Image.open(BytesIO(content)).size) > 0
    with Scorer([benchmark.grader]) as scorer:
        scorer.check_answers(rows.problems, "benchmarks.0.answer_column", benchmark.path)

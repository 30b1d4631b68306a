"""`python -m trainer.rewards`: grade one completion. Reads {"grader", "problem", "text"}, writes the score, both JSON."""

import json
import sys
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from trainer.config import Grader
from trainer.rewards.score import Scorer
from trainer.types import Completion, Problem


def main() -> None:
    asked = json.load(sys.stdin)
    grader: Any = TypeAdapter(Grader).validate_python(asked["grader"])
    words = asked["text"].split()  # no tokenizer here: a length grader counts words
    completion = Completion(tuple(range(len(words))), asked["text"], (0.0,) * len(words), "stop")
    with Scorer([grader]) as scorer:
        [score] = scorer.score([(Problem(**asked["problem"]), completion)])
    json.dump(asdict(score), sys.stdout)


if __name__ == "__main__":
    main()

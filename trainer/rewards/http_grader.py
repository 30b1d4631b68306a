"""The http grader: the completion, its problem and its row go to a service."""

import json

from trainer.grader_config import HttpGrader
from trainer.rewards.grader import Grader
from trainer.rewards.http import Post, Service
from trainer.rewards.template import item_of, sample_of
from trainer.types import Completion, Problem


def http_grader(spec: HttpGrader) -> Grader:
    """What the service answers for the completion."""
    service = Service(spec.url, spec.timeout, spec.batch_size, spec.retries)

    def grade(problem: Problem, completion: Completion) -> Post:
        return Post(service, json.dumps({"sample": sample_of(completion), "item": item_of(problem)}, ensure_ascii=True))

    return grade

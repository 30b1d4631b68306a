"""The python grader: code of the user's, only where the deployment allows it, in a process that can do nothing but compute."""

import json
import os

from trainer.grader_config import PythonGrader
from trainer.rewards.grader import Grader
from trainer.rewards.pool import Call
from trainer.rewards.template import item_of, sample_of
from trainer.strict import SpecError
from trainer.types import Completion, Problem

SETTING = "MHPO_PYTHON_GRADERS"
SANDBOXED = "grade"  # the sandbox's one function
_ON = {"1", "true", "yes", "on"}


def allowed() -> bool:
    """Whether this machine runs users' code to grade."""
    return os.environ.get(SETTING, "").lower() in _ON


def python_grader(spec: PythonGrader) -> Grader:
    """What `grade(sample, item)` returns. Raises SpecError where the deployment does not allow it."""
    if not allowed():
        raise SpecError("rewards", f"python graders are switched off here; whoever runs the service can set {SETTING}=1")

    def grade(problem: Problem, completion: Completion) -> Call:
        sample, item = json.dumps(sample_of(completion)), json.dumps(item_of(problem))
        return Call(SANDBOXED, (spec.source, sample, item), spec.timeout, sandboxed=True)

    return grade

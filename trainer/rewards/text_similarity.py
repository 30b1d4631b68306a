"""The text similarity grader, as in OpenAI's fine-tuning API."""

from trainer.grader_config import TextSimilarityGrader
from trainer.rewards.grader import Grader
from trainer.rewards.pool import Call
from trainer.rewards.template import fill
from trainer.types import Completion, Problem

SIMILARITY = "trainer.rewards.similarity"


def text_similarity_grader(spec: TextSimilarityGrader) -> Grader:
    """How alike the completion and the answer are by the spec's metric."""

    def grade(problem: Problem, completion: Completion) -> Call:
        text = completion.text if spec.input is None else fill(spec.input, problem, completion)
        reference = problem.answer if spec.reference is None else fill(spec.reference, problem, completion)
        return Call(f"{SIMILARITY}:similarity", (spec.evaluation_metric, text, reference), spec.timeout)

    return grade

"""The rows that an evaluation left in its folder, a page at a time."""

import json
from collections.abc import Sequence
from itertools import islice

from api.errors import not_found
from api.models import Evaluation
from api.schemas import EvaluationRowView
from api.settings import settings


def evaluation_rows(
    evaluations: Sequence[Evaluation], evaluation_id: str, benchmark: str, after: int, limit: int
) -> tuple[list[EvaluationRowView], bool]:
    """Up to `limit` problems behind the first `after`, and whether there are more; an ApiError 404 for what has no rows."""
    evaluation = next((one for one in evaluations if one.id == evaluation_id), None)
    if evaluation is None:
        raise not_found("evaluation", evaluation_id)
    file = settings().evaluation_folder(evaluation_id) / "rows" / f"{benchmark}.jsonl"
    if benchmark not in {one["name"] for one in evaluation.spec["benchmarks"]} or not file.is_file():
        raise not_found("scored benchmark of this evaluation", benchmark)
    with file.open(encoding="utf-8", newline="\n") as lines:
        found = [EvaluationRowView.model_validate(json.loads(line)) for line in islice(lines, after, after + limit + 1)]
    return found[:limit], len(found) > limit

"""Evaluations with results, as the evaluator leaves them."""

from dataclasses import asdict

from api.database import transaction
from api.ingest import Span, store_checkpoint, store_metrics
from api.models import Json, ModelKind, Status
from api.record import Claim, claim_evaluation, finish
from api.scores import store_scores
from evaluator.scores import Sample, score_benchmark
from tests.api.conftest import rows


def result(scores: list[list[float]], content_hash: str = "a" * 64, contaminated: int | None = None) -> Json:
    """result.json of an evaluation on one benchmark, `sums`, with these scores of each problem's samples."""
    groups = [
        [Sample(score, tokens=4, truncated=False, answered=True, failed=False, vote=str(score)) for score in group]
        for group in scores
    ]
    held = None if contaminated is None else {"contaminated": contaminated, "problems": len(scores)}
    told = {"content_hash": content_hash, "cached": False, "contamination": held}
    return {"status": "succeeded", "benchmarks": {"sums": asdict(score_benchmark(groups)) | told}}


def evaluate(job_id: str, kind: ModelKind, scored: Json) -> str:
    """Ends the job's queued evaluation of the base model, or of the newest checkpoint, with a result."""
    query = "SELECT id FROM evaluations WHERE job_id = :job_id AND model_kind = :kind AND status = 'queued' ORDER BY step DESC"
    evaluation_id = str(rows(query, job_id=job_id, kind=kind)[0][0])
    with transaction() as session:
        claim = claim_evaluation(session, evaluation_id, "evaluator-1")
        assert claim is not None
        assert finish(session, claim, Status.SUCCEEDED, None, scored)
        store_scores(session, claim, scored)
    return evaluation_id


def train(claim: Claim, rewards: list[float], *, validation_reward: float | None = None) -> None:
    """The metrics of the first steps and a final checkpoint of the last of them."""
    lines = [
        {"step": step, "time": 1e9 + step, "metrics": {"reward": reward, "grad_norm": 1.0 / step}}
        for step, reward in enumerate(rewards, start=1)
    ]
    with transaction() as session:
        store_metrics(session, claim, lines, Span("metrics.jsonl", 0, 100))
        step = len(rewards)
        path = f"checkpoints/step_{step}"
        store_checkpoint(session, claim, step, path, final=True, validation_reward=validation_reward)

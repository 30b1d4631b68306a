"""The API's OpenAPI document: bodies that the API reads by its own strict parser, and the one form of an error."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from trainer.config import JobSpec

JOB_EXAMPLE: dict[str, Any] = {
    "name": "sums",
    "steps": 40,
    "model": {"path": "artifacts/base"},
    "dataset": {"path": "artifacts/sums.jsonl", "problem_column": "problem", "answer_column": "answer"},
    "algorithm": {"type": "mhpo", "c": 1.5},
    "rollout": {"engine": "vllm", "prompts_per_step": 16, "group_size": 8, "max_new_tokens": 16},
    "optimizer": {"lr": 1e-4},
    "rewards": [{"type": "exact"}],
    "evaluation": {"benchmarks": ["aime24"], "samples": 8},
}

JOB_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}, "example": JOB_EXAMPLE}},
}

CLONE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"type": "object", "description": "A JSON merge patch (RFC 7396) on the job's spec"},
            "example": {"algorithm": {"type": "grpo"}, "optimizer": {"lr": 5e-5}},
        }
    },
}

FILE_BODY: dict[str, Any] = {
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
            },
            "example": {"file": '{"problem": "3+7=", "answer": "10"}\n'},
        }
    }
}


def describe(app: FastAPI) -> None:
    """Have `app` publish the job spec's schema among its components."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
            parts = spec.pop("$defs")
            made["components"]["schemas"].update({**parts, "JobSpec": spec})
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend its document

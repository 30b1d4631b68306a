"""The API's OpenAPI document: bodies that the API reads by its own strict parser, and the one form of an error."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.guard import PUBLIC
from api.models import Purpose
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

DATASET_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Dataset"}, "example": {"path": "artifacts/sums.jsonl"}}
    },
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
                "properties": {
                    "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                    "purpose": {"type": "string", "enum": [purpose.value for purpose in Purpose], "default": "fine-tune"},
                },
            },
            "example": {"file": '{"problem": "3+7=", "answer": "10"}\n'},
        }
    }
}

KEY = "An API key, `mhpo-...`: docs/security.md. On the loopback address a request needs none, unless MHPO_REQUIRE_KEY is set."


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The description of a body that the route reads by `model`."""
    schema = model.model_json_schema()
    whole = _inlined(schema, schema.pop("$defs", {}))
    return {"required": True, "content": {"application/json": {"schema": whole, "example": example}}}


def _inlined(node: Any, parts: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(child, parts) for child in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(parts[node["$ref"].removeprefix("#/$defs/")], parts)
    return {key: _inlined(child, parts) for key, child in node.items()}


def describe(app: FastAPI) -> None:
    """Have `app` publish the job spec's schema among its components."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
            parts = spec.pop("$defs")
            made["components"]["schemas"].update({**parts, "JobSpec": spec})
            made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": KEY}}
            made["security"] = [{"key": []}]
            for path in PUBLIC:
                for operation in made["paths"].get(path, {}).values():
                    operation["security"] = []
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend its document

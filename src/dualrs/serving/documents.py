"""What the OpenAPI document says of bodies, which may come in two forms."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from dualrs.models import InputSpec
from dualrs.serving.messages import Problem

_PROBLEMS = {
    400: "The body cannot be read.",
    401: "A token is needed.",
    403: "The operator does not allow this.",
    404: "There is no such thing.",
    405: "Not with this method.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "Neither JSON nor a form.",
    421: "The service does not answer under this name.",
    422: "Something asked for makes no sense, or is more than is allowed.",
    429: "The service is at its limit; Retry-After says when to come back.",
    500: "The service failed.",
    503: "The service is starting or ending.",
}


def responses_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a path may answer with."""
    problem = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 403, 421, 500, *statuses}):
        found[status] = {"model": Problem, "description": _PROBLEMS[status], "content": problem}
        if status == 429:
            seconds = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
            found[status]["headers"] = {"Retry-After": seconds}
    return found


def requests_of(options: type[BaseModel], spec: InputSpec, *, most: int = 1) -> dict[str, Any]:
    """The body of a request with inputs and options, as JSON or as a form with files; `most` inputs in a batch."""
    properties = options.model_json_schema()["properties"]
    single = _numbers(spec)
    inputs = {"type": "array", "items": single, "minItems": 1, "maxItems": most}
    name, values = ("input", single) if most == 1 else ("inputs", inputs)
    file = {"type": "string", "format": "binary", "description": "An image, or a .npy file of numbers."}
    files = file if most == 1 else {"type": "array", "items": file, "minItems": 1, "maxItems": most}
    example = {"input": f"numbers of shape {list(spec.shape)}", "n": 1000, "alpha": 0.001}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {name: values, **properties},
                        "required": [name],
                        "additionalProperties": False,
                    },
                    "examples": {"numbers": {"summary": "An input as nested lists.", "value": example}},
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"image": files, **properties},
                        "required": ["image"],
                        "additionalProperties": False,
                    }
                },
            },
        }
    }


def _numbers(spec: InputSpec) -> dict[str, Any]:
    """Nested lists of numbers of the shape and in the range that a model takes."""
    low, high = spec.range
    schema: dict[str, Any] = {"type": "number", "minimum": low, "maximum": high}
    for size in reversed(spec.shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return {**schema, "description": f"Numbers of shape {list(spec.shape)}."}

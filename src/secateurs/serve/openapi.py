"""The OpenAPI document of the service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import secateurs

Record = dict[str, Any]
_REFUSALS = {
    "400": "An image that cannot be read, or a broken request",
    "403": "A foreign Host, Origin or Sec-Fetch-Site header",
    "408": "A body that does not arrive in time",
    "413": "Too many bytes, pixels or images",
    "415": "A body of another type",
    "503": "Too many requests at a time, see Retry-After; or the server ends",
}


def document(classes: Sequence[str], max_bytes: int, max_images: int) -> Record:
    """The document (OpenAPI 3.1) of a service for these classes, within these limits.

    >>> sorted(document(["a", "b"], 10**6, 4)["paths"])
    ['/card', '/health', '/predict']
    """
    binary: Record = {"type": "string", "format": "binary"}
    form: Record = {
        "type": "object",
        "properties": {"image": {"type": "array", "items": binary, "maxItems": max_images}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Image classifier",
            "version": secateurs.__version__,
            "description": f"Answers of a model for images. A request has at most {max_bytes} "
            f"bytes and {max_images} images.",
        },
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Classify one image, or several in a form",
                    "parameters": [
                        {
                            "name": "top",
                            "in": "query",
                            "description": "Classes per image, most probable first",
                            "schema": {"type": "integer", "minimum": 1, "default": 3},
                        }
                    ],
                    "requestBody": {
                        "required": True,
                        "content": {
                            "multipart/form-data": {"schema": form},
                            "application/octet-stream": {"schema": binary},
                            "image/*": {"schema": binary},
                        },
                    },
                    "responses": {
                        "200": _json("The answers, in the order of the images", "Predictions"),
                        **{code: _json(text, "Refusal") for code, text in _REFUSALS.items()},
                    },
                }
            },
            "/health": _get("health", "Whether the service answers", "Health"),
            "/card": _get("card", "What the model is", "Card"),
        },
        "components": {"schemas": _schemas(list(classes))},
    }


def _json(text: str, schema: str) -> Record:
    kind = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": kind}


def _get(name: str, text: str, schema: str) -> Record:
    return {
        "get": {"operationId": name, "summary": text, "responses": {"200": _json(text, schema)}}
    }


def _object(required: Sequence[str], **properties: Record) -> Record:
    return {"type": "object", "required": list(required), "properties": properties}


def _schemas(classes: list[str]) -> Record:
    answer = _object(
        ("label", "probability"),
        label={"type": "string", "enum": classes},
        probability={"type": "number", "minimum": 0, "maximum": 1},
    )
    prediction = _object(
        ("name", "answers", "error"),
        name={"type": "string", "description": "The file's name in the form, else empty"},
        answers={"type": "array", "items": {"$ref": "#/components/schemas/Answer"}},
        error={"type": ["string", "null"], "description": "Why there is no answer"},
        unsure={
            "type": "boolean",
            "description": "Whether the best answer is below the model's threshold",
        },
    )
    number: Record = {"type": "integer", "minimum": 0}
    return {
        "Answer": answer,
        "Prediction": prediction,
        "Predictions": _object(
            ("predictions",),
            predictions={"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
        ),
        "Refusal": _object(("error",), error={"type": "string"}),
        "Health": _object(
            ("status",),
            status={"const": "ok"},
            requests=number,
            answered=number,
            max_requests=number,
            batch=number,
        ),
        "Card": _object(
            ("classes", "preprocessing", "format"),
            classes={"type": "array", "items": {"type": "string"}},
            preprocessing={"type": "object"},
            confidence={"type": "object"},
            format={"type": "string"},
        ),
    }

"""The parts of the OpenAPI description that FastAPI cannot derive, because bodies are read by featx itself."""

from __future__ import annotations

from typing import Any

_FILE = {"type": "string", "format": "binary"}
_NUMBER, _TEXT, _FLAG = {"type": "number"}, {"type": "string"}, {"type": "boolean"}

_CLASS = {"type": "object", "properties": {"label": _TEXT, "probability": _NUMBER}}

_PREDICTION = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {**_TEXT, "description": "The name of the file, or image 0, image 1, ... by its place."},
        "label": {"type": ["string", "null"], "description": "The class; null if the model rejects the image."},
        "probability": {**_NUMBER, "description": "Of the most probable class."},
        "rejected": {**_FLAG, "description": "True where no class is probable enough; else left out."},
        "reason": {**_TEXT, "description": "Why the image was rejected."},
        "labels": {"type": "array", "items": _TEXT, "description": "The labels, of a model of several labels."},
        "set": {
            "type": "array",
            "items": _TEXT,
            "description": "The classes of the prediction set, of a model that has them.",
        },
        "interval": {
            "type": "array",
            "items": _NUMBER,
            "description": "The ends of the interval of a regression, if any.",
        },
        "value": {**_NUMBER, "description": "The number, of a regression."},
        "top": {"type": "array", "items": _CLASS, "description": "Classes, the most probable first."},
        "error": {**_TEXT, "description": "Why this image has no prediction; then there is nothing else but the name."},
    },
}

_IDENTITY = {"type": "object", "properties": {"name": _TEXT, "identity": _TEXT}}

_PREDICTIONS = {
    "type": "object",
    "properties": {"model": _IDENTITY, "predictions": {"type": "array", "items": _PREDICTION}},
}

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}


def _answer(description: str, content: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": content}}}


_REFUSALS = {
    400: "The body is not a valid form.",
    401: "The token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "Too many bytes or images.",
    415: "The body is of a type that holds no images, or has a Content-Encoding.",
    503: "The queue is full, or the service is stopping; Retry-After has the seconds to wait.",
}

PREDICT: dict[str, Any] = {
    "description": "Takes image files of a form, or the bytes of one image as the whole body. An image that cannot be decoded "
    "gets an error of its own; the status is 422 only if no image could be predicted.",
    "parameters": [
        {
            "name": "top",
            "in": "query",
            "required": False,
            "description": "Number of classes to return for each image; by default all.",
            "schema": {"type": "integer", "minimum": 1},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"files": {"type": "array", "items": _FILE}}}
            },
            "application/octet-stream": {"schema": _FILE},
            "image/*": {"schema": _FILE},
        },
    },
}
"""What ``POST /predict`` takes."""

PREDICTED: dict[int | str, dict[str, Any]] = {
    200: _answer("A prediction or an error for each image, in the order of the request.", _PREDICTIONS),
    422: _answer(
        "No image could be predicted; or the query or the form is not as expected.",
        {"type": "object", "required": ["error"], "properties": {"error": _TEXT, **_PREDICTIONS["properties"]}},  # type: ignore[dict-item]
    ),
    **{status: _answer(description, _ERROR) for status, description in _REFUSALS.items()},
}
"""What ``POST /predict`` answers."""

MODEL: dict[int | str, dict[str, Any]] = {
    200: _answer(
        "Name, kind, task, classes, backbone, what was measured on held-out images, and more.", {"type": "object"}
    ),
    401: _answer(_REFUSALS[401], _ERROR),
}
"""What ``GET /model`` answers."""

HEALTH: dict[int | str, dict[str, Any]] = {
    200: _answer("Yes.", {"type": "object", "properties": {"status": _TEXT}}),
    503: _answer("No, and why.", _ERROR),
}
"""What ``GET /healthz`` and ``GET /readyz`` answer."""

METRICS: dict[int | str, dict[str, Any]] = {
    200: _answer("The text format of Prometheus.", _TEXT, "text/plain"),
    401: _answer(_REFUSALS[401], _ERROR),
}
"""What ``GET /metrics`` answers."""

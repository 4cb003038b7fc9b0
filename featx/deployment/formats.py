"""The formats that a model is exported in, told by a name. Standard library only."""

from __future__ import annotations

from pathlib import Path

ENDINGS = {"onnx": (".onnx",), "openvino": (".xml",)}
"""The formats, and the endings that mean them; the first is that of a file that is named by its format alone."""


def format_of(to: str) -> str:
    """The format that a path or a word after ``--to`` means; "" if it is none for models.

    Examples:
        >>> format_of("model.onnx"), format_of("openvino"), format_of("x.parquet")
        ('onnx', 'openvino', '')
    """
    ending = Path(to).suffix.lower()
    return next((name for name, endings in ENDINGS.items() if to == name or ending in endings), "")


def expected() -> str:
    """The formats in words.

    Examples:
        >>> expected()
        'model.onnx (or onnx), model.xml (or openvino)'
    """
    return ", ".join(f"model{endings[0]} (or {name})" for name, endings in ENDINGS.items())

"""The formats that a model is exported in, told by a name. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

ENDINGS = {"onnx": (".onnx",), "openvino": (".xml",), "torch-export": (".pt2",), "folder": ("/",)}
"""The formats, and the endings that mean them; the first is that of a file that is named by its format alone.

The name of a folder ends in a slash, or the folder is there already.
"""


def format_of(to: str) -> str:
    """The format that a path or a word after ``--to`` means; "" if it is none for models.

    Examples:
        >>> format_of("model.onnx"), format_of("openvino"), format_of("new/"), format_of("x.parquet")
        ('onnx', 'openvino', 'folder', '')
    """
    ending = "/" if to.endswith(("/", os.sep)) or Path(to).is_dir() else Path(to).suffix.lower()
    return next((name for name, endings in ENDINGS.items() if to == name or ending in endings), "")


def expected() -> str:
    """The formats in words.

    Examples:
        >>> expected()
        'model.onnx (or onnx), model.xml (or openvino), model.pt2 (or torch-export), model/ (or folder)'
    """
    return ", ".join(f"model{endings[0]} (or {name})" for name, endings in ENDINGS.items())

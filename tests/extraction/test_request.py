"""The arguments of extract are checked before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featx.backbones.backbone import Backbone
from featx.errors import EngineError
from featx.extraction.pipeline import extract


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"compute": "tensorrt"},
            r"^compute is 'tensorrt'; expected one of auto, eager, compile, openvino, onnxruntime$",
        ),
        ({"compute": ""}, r"^compute is ''; expected one of auto, eager"),
        ({"batch_size": 0}, r"^batch_size is 0; expected a whole number above 0, or auto$"),
        ({"batch_size": -4}, r"^batch_size is -4; expected a whole number above 0, or auto$"),
        ({"batch_size": 2.5}, r"^batch_size is 2\.5; expected a whole number above 0, or auto$"),
        ({"workers": -1}, r"^workers is -1; expected a number of threads above 0$"),
        ({"batch_size": "many"}, r"^batch_size is 'many'; expected a whole number above 0, or auto$"),
    ],
)
def test_a_wrong_engine_or_batch_size_is_an_error_before_anything_is_written(
    options: dict[str, Any], message: str, photos: Path, tmp_path: Path, lenet: Backbone
) -> None:
    with pytest.raises(EngineError, match=message):
        extract(photos, lenet, cache=tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()

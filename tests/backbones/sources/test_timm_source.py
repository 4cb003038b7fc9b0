"""The networks of timm."""

from __future__ import annotations

import pytest

from featx.backbones.backbone import load_backbone
from featx.errors import BackboneError


def test_an_unknown_name_of_timm_is_an_error_with_a_suggestion() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match=r"timm has no model 'resnet10x'; did you mean .*resnet10t"):
        load_backbone("timm/resnet10x")

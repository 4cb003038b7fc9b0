"""The networks of featx itself."""

from __future__ import annotations

import pytest

from featx.backbones.backbone import load_backbone
from featx.errors import BackboneError


def test_a_network_without_weights_to_download_is_an_error_with_a_remedy() -> None:
    with pytest.raises(
        BackboneError, match=r"mobilenet_v1_075 has no weights to download; name a file with --weights FILE"
    ):
        load_backbone("mobilenet_v1_075")

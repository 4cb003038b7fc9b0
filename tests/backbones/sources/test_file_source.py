"""Networks from the user's own Python files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import FACTORIES, pixels_for
from safetensors.torch import save_file

from featx.backbones.backbone import load_backbone
from featx.data.transform import Transform
from featx.errors import BackboneError


def test_a_file_of_ones_own_gives_a_backbone_with_its_transform(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("Net"), layers=("conv",))
    assert backbone.layers == {"penultimate": 4, "conv": 4}
    assert backbone.classifier == "fc"
    assert (backbone.transform.resize, backbone.transform.crop) == (40, 32)
    pixels = pixels_for(backbone)
    with torch.inference_mode():
        expected = backbone.network.embed(torch.from_numpy(pixels) / 255)
    np.testing.assert_allclose(backbone.encode(pixels)["penultimate"], expected, rtol=1e-5)
    assert load_backbone(own("Net")).identities["penultimate"] == backbone.identities["penultimate"]


def test_a_network_of_ones_own_without_a_transform_has_imagenets(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("plain"))
    assert backbone.transform == Transform()
    assert backbone.layers == {"penultimate": 7}


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("headless", r"Sequential has no linear or convolutional layer .* method get_classifier\(\)"),
        ("nothing", r"mine\.py:nothing: expected a function .* torch\.nn\.Module; it returned str"),
        ("missing", r"mine\.py:missing: expected a function .*; mine\.py has no such function"),
        ("not_a_function", r"expected a function .*; mine\.py has no such function"),
        ("broken", r"mine\.py:broken failed: LookupError: no such thing"),
        ("needy", r"mine\.py:needy failed: TypeError: .*missing 1 required positional argument: 'width'"),
        ("OddTransform", r"its transform is a str; expected a featx\.Transform"),
    ],
)
def test_a_factory_of_ones_own_that_fails_says_what_is_expected(
    own: Callable[[str], str], factory: str, message: str
) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(own(factory))


def test_a_file_of_ones_own_that_is_not_there_or_not_python_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"there is no file .*none\.py; expected path/to/file\.py:factory"):
        load_backbone(f"{tmp_path}/none.py:make")
    (tmp_path / "text.py").write_text("this is no python")
    with pytest.raises(BackboneError, match=r"text\.py:make failed: SyntaxError: invalid syntax"):
        load_backbone(f"{tmp_path}/text.py:make")


def test_the_code_that_runs_is_the_code_that_the_identity_is_of(
    own: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's own import trusts a compiled file as long as the source's size and second are the same.
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    before = load_backbone(own("Net"))
    stat = file.stat()
    file.write_text(FACTORIES.replace("Dropout(0.5)", "Dropout(0.1)"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = load_backbone(own("Net"))
    assert after.network.drop.p == 0.1
    assert after.identity != before.identity


def test_weights_for_a_network_of_ones_own_come_from_a_file(own: Callable[[str], str], tmp_path: Path) -> None:
    state = {name: tensor + 1 for name, tensor in load_backbone(own("Net")).network.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    backbone = load_backbone(own("Net"), weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(backbone.network.fc.bias, state["fc.bias"])


def test_a_network_that_comes_in_training_mode_is_put_in_eval_mode(own: Callable[[str], str]) -> None:
    backbone = load_backbone(own("training"))
    pixels = pixels_for(backbone)
    first = backbone.encode(pixels)["penultimate"]
    np.testing.assert_array_equal(backbone.encode(pixels)["penultimate"], first)
    assert (first > 0).all()  # no dropout
    assert backbone.network.norm.num_batches_tracked == 0

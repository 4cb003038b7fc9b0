"""Weights as training programs leave them: in containers, under prefixes, with other last layers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import stored
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import DenseNet

from featx.backbones.backbone import load_backbone
from featx.backbones.checkpoint import load_checkpoint, split_part
from featx.backbones.classifier import classifier_logits
from featx.backbones.identities import in_stored_form
from featx.backbones.restored import restore_backbone
from featx.errors import BackboneError


class Net(nn.Module):
    """Two blocks and a last layer, named as in a ResNet."""

    def __init__(self, classes: int = 5, blocks: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(blocks)))
        self.fc = nn.Linear(4, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer1(self.bn1(self.conv1(images)).relu()).mean((2, 3)))
        return logits


def network(seed: int = 0, **sizes: int) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(**sizes)


SOURCE = network(1)
STATE = {name: tensor.clone() for name, tensor in SOURCE.state_dict().items()}
OTHER = {name: tensor.clone() for name, tensor in network(2).state_dict().items()}
BACKBONE = [name for name in STATE if not name.startswith("fc.")]


def under(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def without_last(state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def load(folder: Path, content: Any, part: str = "") -> tuple[Net, str]:
    """A fresh network with the weights of a checkpoint, and what was said about them."""
    torch.save(content, folder / "w.pth")
    fresh = network(9)
    notes = load_checkpoint(fresh, folder / "w.pth", part=part, classifier=lambda: "fc")
    return fresh, "\n".join(notes)


def assert_backbone(loaded: nn.Module, state: dict[str, Tensor] = STATE) -> None:
    for name in BACKBONE:
        assert torch.equal(loaded.state_dict()[name], state[name]), name


@pytest.mark.parametrize(
    ("checkpoint", "taken"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, "in its state_dict"),
        ({"model": STATE, "args": ["--fast"]}, "in its model"),
        ({"state_dict": {"model": STATE}}, "in its state_dict.model"),
        (under("module."), "after module. was"),
        ({"model": under("module.")}, "in its model, after module. was"),
        ({"state_dict": under("model."), "pytorch-lightning_version": "2.4", "loops": {}}, "after model. was"),
        ({"state_dict": under("net._orig_mod.")}, "after net. was"),
        (under("_orig_mod."), ""),
        ({n.replace("layer1.", "layer1._orig_mod."): t for n, t in STATE.items()}, ""),
        ({n.replace("layer1.0", "layer1.0._checkpoint_wrapped_module"): t for n, t in STATE.items()}, ""),
        ({"state_dict": {**under("module.encoder_q."), "module.queue": torch.ones(4, 9)}}, "after module.encoder_q. was"),
        ({"teacher": {**under("backbone."), "head.last_layer.weight_g": torch.ones(3, 1)}}, "after backbone. was"),
        ({"state_dict_ema": STATE, "arch": "resnet"}, "in its state_dict_ema"),
        ({"models": {"target": {"net": under("a.b.c.")}}}, "in its models.target.net, after a.b.c. was"),
        ({**under("module."), "n_averaged": torch.tensor(3)}, "after module. was"),
    ],
)  # fmt: skip
def test_containers_and_prefixes_are_taken_off_and_said(tmp_path: Path, checkpoint: Any, taken: str) -> None:
    loaded, notes = load(tmp_path, checkpoint)
    assert_backbone(loaded)
    assert torch.equal(loaded.fc.weight, STATE["fc.weight"])
    assert taken in notes
    assert (notes == "") is (not taken)


def test_what_several_ways_would_fit_is_refused_until_one_is_named(tmp_path: Path) -> None:
    moco = {"state_dict": {**under("module.encoder_q."), **under("module.encoder_k.", OTHER)}}
    with pytest.raises(
        BackboneError,
        match=r"w\.pth holds 2 networks that fit Net: state_dict\.module\.encoder_q, state_dict\.module\.encoder_k\. "
        r"Name one of them, as in --weights .*w\.pth#encoder_q$",
    ):
        load(tmp_path, moco)
    for part, state in (("encoder_q", STATE), ("encoder_k", OTHER), ("module.encoder_k", OTHER)):
        assert_backbone(load(tmp_path, moco, part)[0], state)
    averaged = {"state_dict": STATE, "state_dict_ema": OTHER}
    with pytest.raises(BackboneError, match="2 networks that fit Net: state_dict, state_dict_ema"):
        load(tmp_path, averaged)
    assert_backbone(load(tmp_path, averaged, "state_dict_ema")[0], OTHER)
    dino = {"student": under("module.backbone."), "teacher": under("backbone.", OTHER)}
    assert_backbone(load(tmp_path, dino, "teacher")[0], OTHER)
    with pytest.raises(BackboneError, match=r"student\.module\.backbone, teacher\.backbone\. .*w\.pth#student$"):
        load(tmp_path, dino)
    with pytest.raises(BackboneError, match="has no part 'pupil' with tensors by name"):
        load(tmp_path, dino, "pupil")


def test_two_copies_of_the_same_tensors_are_one_network(tmp_path: Path) -> None:
    assert_backbone(load(tmp_path, {"state_dict": STATE, "state_dict_ema": STATE})[0])


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (without_last(), "the last layer, fc, is not in it"),
        (network(1, classes=10).state_dict(), "fc.weight has the shape (10, 4) and the network's is (5, 4)"),
        ({**without_last(), "fc.0.weight": torch.ones(9, 4), "fc.2.weight": torch.ones(2, 9)}, "it is another one"),
        ({"state_dict": under("encoder.", without_last()) | {"head.weight": torch.ones(3, 4)}}, "encoder. was taken off"),
        ({**STATE, "projector.0.weight": torch.ones(2, 4), "aux1.conv.weight": torch.ones(2)}, "projector, aux1 are not used"),
    ],
)  # fmt: skip
def test_a_last_layer_that_is_missing_or_another_one_is_left_out_and_said(
    tmp_path: Path, checkpoint: dict[str, Tensor], said: str
) -> None:
    loaded, notes = load(tmp_path, checkpoint)
    assert_backbone(loaded)
    assert said in notes
    left_out = "no feature depends on it" in notes
    assert torch.equal(loaded.fc.weight, torch.zeros(5, 4) if left_out else STATE["fc.weight"])


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (network(1, blocks=3).state_dict(),
         r"does not fit Net: all 10 tensors of Net are in it, but 2 more belong .* the first layer1\.2\.weight\. "),
        (network(1, blocks=1).state_dict(),
         r"does not fit Net: 8 of 10 tensors fit; the first that does not is layer1\.1\.weight, which is missing\. Name the"),
        ({"model": under("module.", network(1, blocks=3).state_dict())},
         r"does not fit Net \(in its model, without the prefix module\.\): all 10 .* first module\.layer1\.2\.weight"),
        ({**STATE, "pos_embed": torch.ones(3)}, r"1 more belongs to no part of it, the first pos_embed\. "),
        ({**STATE, "conv1.weight": torch.ones(4, 1, 3, 3)},
         r"9 of 10 .* is conv1\.weight, .* shape \(4, 1, 3, 3\) instead of \(4, 3, 3, 3\)\. .* images of 1 channel ins"),
        ({**STATE, "conv1.weight": STATE["conv1.weight"].mul(99).to(torch.int8)},
         r"conv1\.weight, which is int8 instead of float32\. Weights of another type may be quantized"),
        ({**STATE, "bn1.weight": STATE["bn1.weight"].to(torch.uint8)}, r"bn1\.weight, which is uint8 instead of float32"),
        ({**STATE, "bn1.weight": STATE["bn1.weight"].to(torch.float8_e4m3fn)}, r"bn1\.weight, which is float8_e4m3fn instead"),
        ({**STATE, "bn1.bias": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)}, r"bn1\.bias, which is qint8"),
    ],
)  # fmt: skip
def test_what_belongs_to_the_backbone_must_fit_whole(tmp_path: Path, checkpoint: Any, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load(tmp_path, checkpoint)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted_and_said(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in STATE.items()}
    loaded, notes = load(tmp_path, state)
    assert notes.endswith(f"w.pth: its {str(dtype).removeprefix('torch.')} numbers were converted to float32")
    assert torch.equal(loaded.conv1.weight, STATE["conv1.weight"].to(dtype).float())


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {}, {"a": 1}, {"a": {"b": {"c": 3}}}])
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(BackboneError, match="does not hold tensors by name; expected the state_dict of a network"):
        load(tmp_path, content)


def test_the_names_that_densenet_files_have_of_old_are_todays(tmp_path: Path) -> None:
    dense = DenseNet(growth_rate=4, block_config=(2, 1), num_init_features=8, num_classes=3)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", n): t for n, t in dense.state_dict().items()}
    assert "features.denseblock1.denselayer2.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    fresh = DenseNet(growth_rate=4, block_config=(2, 1), num_init_features=8, num_classes=3)
    load_checkpoint(fresh, tmp_path / "w.pth")
    assert all(torch.equal(tensor, dense.state_dict()[name]) for name, tensor in fresh.state_dict().items())


def test_a_file_may_have_the_mark_of_a_part_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "run#3.pth").touch()
    assert split_part(f"{tmp_path}/run#3.pth") == (f"{tmp_path}/run#3.pth", "")
    assert split_part(f"{tmp_path}/run#3.pth#teacher") == (f"{tmp_path}/run#3.pth", "teacher")
    assert split_part("w.pth") == ("w.pth", "")


@pytest.mark.parametrize(
    ("name", "last", "side"),
    [("mobilenet_v2", "classifier", 32), ("squeezenet1_1", "classifier.1", 64), ("mobilenet_v3_small", "classifier.3", 32)],
)  # fmt: skip
def test_a_network_of_torchvision_fine_tuned_on_other_classes_is_a_backbone(
    tmp_path: Path, name: str, last: str, side: int
) -> None:
    tuned = models.get_model(name, weights=None, num_classes=7)
    torch.save(tuned.state_dict(), tmp_path / "tuned.pth")
    backbone = load_backbone(name, weights=str(tmp_path / "tuned.pth"), crop=side, device="cpu")
    expected = {n: t for n, t in tuned.state_dict().items() if not n.startswith(f"{last}.")}
    assert all(torch.equal(backbone.network.state_dict()[n], t) for n, t in expected.items())
    (note,) = [note for note in backbone.notes if "last layer" in note]
    assert note.startswith(f"{tmp_path / 'tuned.pth'}: the last layer, ")
    assert (
        classifier_logits(backbone.network, backbone.classifier, torch.zeros(2, backbone.layers["penultimate"]).numpy())
        is None
    )
    headless = load_backbone(name, weights=saved(tmp_path / "headless.safetensors", expected), crop=side, device="cpu")
    assert headless.identity == backbone.identity
    with torch.no_grad():
        next(iter(expected.values()))[0] += 1
    changed = load_backbone(name, weights=saved(tmp_path / "changed.safetensors", expected), crop=side, device="cpu")
    assert changed.identity != backbone.identity


def saved(path: Path, state: dict[str, Tensor]) -> str:
    save_file(state, path)
    return str(path)


def test_a_file_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"net": load_backbone("lenet5").network.state_dict()}, tmp_path / "w.pth")
    assert load_backbone("lenet5", weights="~/w.pth#net").weights == f"{tmp_path.resolve()}/w.pth#net"


def test_a_named_part_is_part_of_the_stored_weights_and_found_again(tmp_path: Path) -> None:
    lenet, other = (load_backbone("lenet5", weights=weights).network.state_dict() for weights in ("default", "random"))
    torch.save({"student": under("backbone.", other), "teacher": under("backbone.", lenet)}, tmp_path / "dino.pth")
    backbone = load_backbone("lenet5", weights=f"{tmp_path}/dino.pth#teacher")
    assert backbone.weights == f"{tmp_path.resolve()}/dino.pth#teacher"
    lenet5 = load_backbone("lenet5")
    assert in_stored_form(backbone, lenet5.identities).identity == lenet5.identity
    assert restore_backbone(stored(backbone), layers=backbone.identities).identity == backbone.identity

"""Checkpoints in the shapes in which training programs write them: one backbone in each, and the same features from all."""

from __future__ import annotations

import copy
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models import ResNet, VisionTransformer, mnasnet0_5
from torchvision.models.resnet import BasicBlock, Bottleneck

from featx.backbones.checkpoint import load_checkpoint
from featx.backbones.weights import copy_into
from featx.errors import BackboneError

State = dict[str, Tensor]


class SmallResNet(nn.Module):
    """A ResNet of a few channels; its parts and tensors have the names and order of every ResNet of torchvision and timm."""

    def __init__(self, classes: int = 5, blocks: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(*(BasicBlock(4, 4) for _ in range(blocks)))
        for number, width in enumerate((8, 12, 16), start=2):
            down = nn.Sequential(nn.Conv2d(width - 4, width, 1, 2, bias=False), nn.BatchNorm2d(width))
            further = (BasicBlock(width, width) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(BasicBlock(width - 4, width, 2, down), *further))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, 5):
            maps = self.get_submodule(f"layer{number}")(maps)
        logits: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


def small_resnet(seed: int = 0, classes: int = 5, blocks: int = 1) -> SmallResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallResNet(classes, blocks)
        for module in network.modules():  # so that no statistics are those of a new network
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
        return network


NET, OTHER = small_resnet(1), small_resnet(2)
STATE: State = {name: tensor.clone() for name, tensor in NET.state_dict().items()}
ELSE: State = {name: tensor.clone() for name, tensor in OTHER.state_dict().items()}
HEADLESS = {name: tensor for name, tensor in STATE.items() if not name.startswith("fc.")}
PROJECTOR = {"0.weight": torch.ones(4, 512), "2.weight": torch.ones(3, 4)}


def under(prefix: str, state: State = STATE) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def trained(network: nn.Module) -> dict[str, Any]:
    """The state of an optimizer that has made a step."""
    optimizer = torch.optim.AdamW(list(network.parameters())[:4])
    optimizer.zero_grad()
    sum(p.sum() for p in [*network.parameters()][:4]).backward()  # type: ignore[union-attr]
    optimizer.step()
    return optimizer.state_dict()


def averaged() -> State:
    average = AveragedModel(copy.deepcopy(NET), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(NET)
    return dict(average.state_dict())


def in_sequence(*parts: nn.Module) -> State:
    return dict(nn.Sequential(*parts).state_dict())


def compiled() -> State:
    return dict(torch.compile(copy.deepcopy(NET)).state_dict())


def parallel() -> State:
    return dict(nn.DataParallel(copy.deepcopy(NET)).state_dict())


def partly_parallel() -> State:
    network = copy.deepcopy(NET)
    network.layer1 = nn.DataParallel(network.layer1)  # type: ignore[assignment]
    return dict(network.state_dict())


class Lightning(nn.Module):
    """As a LightningModule holds a network, a loss and metrics."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, copy.deepcopy(NET))
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(5))


BODY = [*copy.deepcopy(NET).children()]
TRAINERS: dict[str, Callable[[], Any]] = {
    "torch.save(network.state_dict())": lambda: OrderedDict(STATE),
    "the training loop of PyTorch's tutorial": lambda: {
        "epoch": 3,
        "model_state_dict": STATE,
        "optimizer_state_dict": trained(copy.deepcopy(NET)),
        "loss": 0.4,
    },
    "PyTorch's ImageNet example": lambda: {
        "epoch": 9,
        "arch": "resnet18",
        "state_dict": parallel(),
        "best_acc1": torch.tensor(71.3),
        "optimizer": trained(copy.deepcopy(NET)),
        "scheduler": {"last_epoch": 9},
    },
    "torchvision's references": lambda: {
        "model": STATE,
        "optimizer": trained(copy.deepcopy(NET)),
        "epoch": 4,
        "scaler": {},
    },
    "torchvision's references, of its average": lambda: {"model_ema": averaged(), "epoch": 4},
    "timm's train.py": lambda: {"epoch": 1, "arch": "resnet18", "state_dict": STATE, "version": 2, "metric": 0.7},
    "timm's train.py with an equal average": lambda: {"state_dict": STATE, "state_dict_ema": STATE, "metric": 0.7},
    "Lightning": lambda: {
        "state_dict": dict(Lightning("model").state_dict()),
        "pytorch-lightning_version": "2.5.0",
        "global_step": 12,
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [trained(copy.deepcopy(NET))],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1},
        "loops": {},
    },
    "Lightning with a compiled network": lambda: {"state_dict": under("net._orig_mod.")},
    "Lightning with a network called backbone": lambda: {"state_dict": dict(Lightning("backbone").state_dict())},
    "Lightning with the metrics of torchmetrics": lambda: {
        "state_dict": {**under("model."), "train_acc.tp": torch.ones(5), "val_acc.tp": torch.ones(5)},
    },
    "Lightning Fabric": lambda: {"model": under("_forward_module."), "step": 3},
    "fastai's learn.save": lambda: {
        "model": in_sequence(nn.Sequential(*BODY[:-2]), nn.Linear(4, 2)),
        "opt": {"hypers": []},
    },
    "fastai's learn.save without the optimizer": lambda: in_sequence(nn.Sequential(*BODY[:-2]), nn.Linear(4, 2)),
    "fastai with a network of timm": lambda: in_sequence(nn.ModuleDict({"model": copy.deepcopy(NET)}), nn.Linear(4, 2)),
    "nn.Sequential(network, head)": lambda: in_sequence(copy.deepcopy(NET), nn.Linear(5, 2)),
    "nn.Sequential(*children[:-1])": lambda: in_sequence(*BODY[:-1]),
    "DataParallel": parallel,
    "DataParallel around one part": partly_parallel,
    "DistributedDataParallel and torch.compile": lambda: {"model": under("module._orig_mod.")},
    "torch.compile": compiled,
    "FSDP with whole tensors": lambda: under("_fsdp_wrapped_module."),
    "FSDP around each block": lambda: {
        re.sub(r"(layer\d\.0)", r"\1._fsdp_wrapped_module", n): t for n, t in STATE.items()
    },
    "DeepSpeed": lambda: {
        "module": STATE,
        "ds_version": "0.15",
        "global_steps": 5,
        "optimizer": None,
        "param_shapes": [],
    },
    "Accelerate's save_state": lambda: STATE,
    "MMPretrain": lambda: {
        "meta": {"epoch": 3},
        "state_dict": {**under("backbone.", HEADLESS), "head.fc.weight": torch.ones(3, 512)},
        "message_hub": {},
    },
    "MMSegmentation": lambda: {
        "state_dict": {
            **under("backbone.", HEADLESS),
            "decode_head.conv_seg.weight": torch.ones(2, 4, 1, 1),
            "auxiliary_head.conv_seg.weight": torch.ones(2, 4, 1, 1),
        },
    },
    "torchvision's detection": lambda: {
        "model": {
            **under("backbone.body.", HEADLESS),
            "backbone.fpn.inner_blocks.0.weight": torch.ones(3),
            "rpn.head.conv": torch.ones(2),
        },
    },
    "MoCo v1 and v2": lambda: {
        "arch": "resnet18",
        "state_dict": {
            **under("module.encoder_q."),
            "module.queue": torch.ones(4, 9),
            "module.queue_ptr": torch.zeros(1, dtype=torch.long),
        },
    },
    "MoCo v3": lambda: {
        "state_dict": {
            **under("module.base_encoder.", HEADLESS),
            **under("module.base_encoder.fc.", PROJECTOR),
            **under("module.predictor.", PROJECTOR),
        },
    },
    "SimSiam": lambda: {
        "state_dict": {
            **under("module.encoder.", HEADLESS),
            **under("module.encoder.fc.", PROJECTOR),
            **under("module.predictor.", PROJECTOR),
        },
    },
    "SimCLR with its projector in the place of the last layer": lambda: {
        "state_dict": {**under("backbone.", HEADLESS), **under("backbone.fc.", PROJECTOR)},
        "arch": "resnet18",
    },
    "SimCLR with a projector beside it": lambda: {**under("encoder.", HEADLESS), **under("projector.", PROJECTOR)},
    "BYOL": lambda: {
        "online_network_state_dict": {**under("encoder.", HEADLESS), **under("projetion.net.", PROJECTOR)},
        "optimizer": {},
    },
    "byol-pytorch": lambda: {**under("online_encoder.net."), **under("online_predictor.net.", PROJECTOR)},
    "SwAV": lambda: {
        "state_dict": {
            **under("module.", HEADLESS),
            **under("module.projection_head.", PROJECTOR),
            "module.prototypes.weight": torch.ones(9, 3),
        },
        "epoch": 1,
    },
    "Barlow Twins": lambda: {"model": {**under("module.backbone.", HEADLESS), **under("module.projector.", PROJECTOR)}},
    "VICReg": lambda: {"model": under("module.backbone.", HEADLESS), "optimizer": {}},
    "DINO of torch.hub without a last layer": lambda: HEADLESS,
    "DINO's teacher alone": lambda: {
        "teacher": {
            **under("backbone."),
            "head.mlp.0.weight": torch.ones(4, 5),
            "head.last_layer.weight_v": torch.ones(3, 2),
        },
    },
    "DINOv2": lambda: {
        "teacher": {**under("backbone."), **under("dino_head.", PROJECTOR), **under("ibot_head.", PROJECTOR)}
    },
    "solo-learn": lambda: {
        "state_dict": {
            **under("backbone.", HEADLESS),
            **under("projector.", PROJECTOR),
            "classifier.weight": torch.ones(7, 512),
            "momentum_classifier.weight": torch.ones(7, 512),
            "queue": torch.ones(2, 4),
        },
        "hyper_parameters": {"max_epochs": 4},
    },
    "Lightly with nn.Sequential(*children[:-1])": lambda: {
        "state_dict": {**under("backbone.", in_sequence(*BODY[:-1])), **under("projection_head.layers.", PROJECTOR)},
    },
    "lightly-train's export": lambda: STATE,
    "VISSL": lambda: {
        "phase_idx": 1,
        "classy_state_dict": {
            "base_model": {
                "model": {"trunk": under("_feature_blocks.", HEADLESS), "heads": {"0.clf.0.weight": torch.ones(9, 4)}}
            }
        },
    },
    "SparK": lambda: {
        "module": {
            **under("sparse_encoder.sp_cnn.", HEADLESS),
            "dense_decoder.dec.0.weight": torch.ones(3),
            "mask_tokens.0": torch.ones(1),
        },
    },
    "Composer": lambda: {"state": {"model": under("module."), "optimizers": {"Adam": {}}}, "rng": []},
    "PyTorch Ignite": lambda: {
        "model": STATE,
        "trainer": {"epoch_length": 5},
        "optimizer": trained(copy.deepcopy(NET)),
    },
    "Catalyst": lambda: {"model_state_dict": STATE, "epoch_metrics": {"loss": 0.1}, "criterion_state_dict": {}},
    "ema-pytorch": lambda: {**under("ema_model."), "initted": torch.tensor(True), "step": torch.tensor(3)},
    "a further classifier": lambda: {**HEADLESS, "jigsaw_fc.weight": torch.ones(2, 16), "fc_aux.bias": torch.ones(2)},
    "a list of states": lambda: [STATE, {"lr": 0.1}],
    "a container in a container": lambda: {"checkpoint": {"weights": {"params": {"network": STATE}}}},
    "federated learning": lambda: {"global_model": {"weights": under("img_encoder.")}, "round": 3},
    "an optimizer with the names of the weights": lambda: {
        "model": STATE,
        "optimizer": {"exp_avg": ELSE, "exp_avg_sq": ELSE},
    },
    "a network of other classes": lambda: small_resnet(1, classes=9).state_dict() | HEADLESS,
    "batch norm without the count of its batches": lambda: {n: t for n, t in STATE.items() if "num_batches" not in n},
    "parameters instead of tensors": lambda: {
        n: nn.Parameter(t) if t.is_floating_point() else t for n, t in STATE.items()
    },
    "views of shared storage": lambda: {n: torch.stack([t, t])[1] for n, t in STATE.items()},
    "transposed storage": lambda: {n: t.mT.contiguous().mT if t.ndim > 1 else t for n, t in STATE.items()},
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_backbone_of_a_trainers_checkpoint_is_loaded_whole(tmp_path: Path, trainer: str) -> None:
    torch.save(TRAINERS[trainer](), tmp_path / "w.ckpt")
    loaded = small_resnet(9)
    load_checkpoint(loaded, tmp_path / "w.ckpt", classifier=lambda: "fc")
    state = loaded.state_dict()
    for name, tensor in HEADLESS.items():
        if "num_batches_tracked" not in name:
            assert torch.equal(state[name], tensor), name
    assert torch.equal(state["fc.weight"], STATE["fc.weight"]) or not state["fc.weight"].any()


AMBIGUOUS: dict[str, tuple[Any, str]] = {
    "MoCo": ({"state_dict": {**under("module.encoder_q."), **under("module.encoder_k.", ELSE)}}, "encoder_q"),
    "MoCo v3": (
        {"state_dict": {**under("module.base_encoder."), **under("module.momentum_encoder.", ELSE)}},
        "base_encoder",
    ),
    "DINO": ({"student": under("module.backbone."), "teacher": under("backbone.", ELSE)}, "student"),
    "timm with an average": ({"state_dict": STATE, "state_dict_ema": ELSE}, "state_dict"),
    "torchvision with an average": ({"model": STATE, "model_ema": under("module.", ELSE)}, "model"),
    "ema-pytorch": ({**under("ema_model."), **under("online_model.", ELSE)}, "ema_model"),
    "BYOL": ({"state_dict": {**under("online_encoder."), **under("target_encoder.", ELSE)}}, "online_encoder"),
    "a network without its last layer": ({**under("encoder.", HEADLESS), **under("decoder.", ELSE)}, "encoder"),
    "numbered clients": ({0: STATE, 1: ELSE}, "0"),
    "a name that is a part of the other": ({**under("net."), **under("online.net.", ELSE)}, "net"),
    "an average within the network": ({**STATE, **under("ema.", ELSE)}, "."),
    "an average within the network, in a prefix": (
        {**under("module.", STATE), **under("module.ema.", ELSE)},
        "module",
    ),
}


@pytest.mark.parametrize("trainer", AMBIGUOUS)
def test_of_two_networks_that_fit_one_must_be_named(tmp_path: Path, trainer: str) -> None:
    content, part = AMBIGUOUS[trainer]
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(
        BackboneError, match=r"holds 2 networks that fit resnet10: .*\. Name one of them, as in"
    ) as caught:
        load_checkpoint(small_resnet(9), tmp_path / "w.pth", name="resnet10", classifier=lambda: "fc")
    suggested = re.findall(r"w\.pth#([\w.]+)", str(caught.value))
    assert len(suggested) == (2 if part == "." else 1)
    for each in suggested:
        load_checkpoint(small_resnet(9), tmp_path / "w.pth", part=each, classifier=lambda: "fc")
    loaded = small_resnet(9)
    load_checkpoint(loaded, tmp_path / "w.pth", part=part, classifier=lambda: "fc")
    assert torch.equal(loaded.state_dict()["layer4.0.conv2.weight"], STATE["layer4.0.conv2.weight"])


def test_blocks_in_chunks_of_dinov2s_training_are_found(tmp_path: Path) -> None:
    state = small_blocks(1).state_dict()
    chunks = {re.sub(r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}", n): t for n, t in state.items()}
    assert "blocks.1.3.weight" in chunks
    torch.save({"teacher": {**under("backbone.", chunks), "dino_head.mlp.0.weight": torch.ones(3)}}, tmp_path / "w.pth")
    loaded = small_blocks(2)
    notes = load_checkpoint(loaded, tmp_path / "w.pth", classifier=lambda: "head")
    assert "the numbers of chunks of blocks were taken out of their names" in notes[0]
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def small_blocks(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
        return nn.Sequential(
            OrderedDict(patch_embed=nn.Linear(4, 3), blocks=blocks, norm=nn.LayerNorm(3), head=nn.Linear(3, 2))
        )


@pytest.mark.parametrize("strict", [False, True])
def test_a_network_that_asks_for_the_version_of_a_state_is_loaded(tmp_path: Path, strict: bool) -> None:
    source, loaded = mnasnet0_5(), mnasnet0_5()
    state = dict(
        source.state_dict()
    )  # a dictionary without _metadata, as every file of safetensors and most containers give
    if strict:
        copy_into(loaded, state, strict=True)
    else:
        torch.save({"model": under("module.", state)}, tmp_path / "w.pth")
        load_checkpoint(loaded, tmp_path / "w.pth", classifier=lambda: "classifier.1")
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


REFUSED: dict[str, tuple[Any, str]] = {
    "a larger network": (
        small_resnet(blocks=2).state_dict(),
        r"all 60 tensors of resnet10 are in it, but 40 more belong to no part of it, the first layer1\.1\.conv1\.weight\. Name",
    ),
    "a network of twice the width": (
        {n: torch.cat([t, t]) if t.ndim else t for n, t in STATE.items()},
        r"0 of 60 tensors fit; .* conv1\.weight, which has .* It has this network's names and other shapes, as a larger",
    ),
    "bottleneck blocks": (
        ResNet(Bottleneck, [1, 1, 1, 1]).state_dict(),
        r"does not fit resnet10: 0 of 60 tensors fit; the first .* conv1.* of another architecture \(its names are",
    ),
    "a prefix that nearly fits": (
        {"model": {n: t for n, t in under("trunk.").items() if "layer4.0.bn2" not in n}},
        r"\(in its model, without the prefix trunk\.\): 56 of 60 tensors fit; the first .* layer4\.0\.bn2\.weight, "
        r"which is missing",
    ),
    "a network with a further token": (
        {
            **{n: t for n, t in STATE.items() if n != "conv1.weight"},
            "dist_token": torch.ones(1, 1, 4),
        },
        r"conv1\.weight, which is missing\. .*another architecture: 1 tensor of it has no place in .* dist_token",
    ),
    "one channel": (
        {**STATE, "conv1.weight": torch.ones(4, 1, 7, 7)},
        r"conv1\.weight, which has the shape \(4, 1, 7, 7\) .*for images of 1 channel instead of 3",
    ),
    "a Hugging Face ResNet": (
        {
            "resnet.embedder.embedder.convolution.weight": torch.ones(64, 3, 7, 7),
            "resnet.encoder.stages.0.x": torch.ones(1),
        },
        r"0 of 60 tensors fit; .* its names are those of Hugging Face transformers: .*--backbone hf/FOLDER",
    ),
    "CLIP": (
        {"visual.conv1.weight": torch.ones(4, 3, 2, 2), "visual.proj": torch.ones(1)},
        r"those of CLIP: .*open_clip/",
    ),
    "a LoRA adapter": ({"base_model.model.conv1.lora_A.weight": torch.ones(2)}, r"a LoRA adapter: merge it"),
    "a shard of FSDP": (
        {"_fsdp_wrapped_module._flat_param": torch.ones(9)},
        r"flat shards: save it again with .*FULL_STATE_DICT",
    ),
    "a pruned network": (
        {
            **{n.replace("conv1.weight", "conv1.weight_orig"): t for n, t in STATE.items()},
            "conv1.weight_mask": torch.ones(1),
        },
        r"its layers are pruned: call torch\.nn\.utils\.prune\.remove",
    ),
    "DeepSpeed ZeRO-3": (
        {"module": {n: torch.empty(0) for n in STATE}},
        r"those of DeepSpeed ZeRO-3: run zero_to_fp32\.py",
    ),
    "meta tensors": ({n: t.to("meta") for n, t in STATE.items()}, r"on the meta device.* have no numbers"),
    "sparse tensors": ({**STATE, "conv1.weight": STATE["conv1.weight"].to_sparse()}, r"sparse float32 .*to_dense\(\)"),
    "complex numbers": (
        {**STATE, "conv1.weight": STATE["conv1.weight"].to(torch.complex64)},
        r"complex64 instead of float32",
    ),
    "wider blocks": (
        {**STATE, "layer1.0.conv1.weight": torch.ones(3, 4, 3, 3), "layer1.0.conv2.weight": torch.ones(4, 3, 3, 3)},
        r"(3, 4, 3, 3) instead of (4, 4, 3, 3)\. Name the architecture".replace("(", r"\(").replace(")", r"\)"),
    ),
    "NaN": (
        {**STATE, "bn1.weight": torch.full((4,), torch.nan)},
        r"NaN or infinite weights: 4 numbers of bn1\.weight, perhaps",
    ),
    "infinity": ({**STATE, "layer1.0.conv1.weight": STATE["layer1.0.conv1.weight"] / 0}, r"NaN or infinite weights"),
    "numbers too large for float32": (
        {**STATE, "conv1.weight": STATE["conv1.weight"].double() * 1e300},
        r"NaN or infinite weights: \d+ numbers of conv1\.weight",
    ),
    "EMA without names": (
        {"decay": 0.9, "shadow_params": [*STATE.values()]},
        r"its shadow_params is a list of 74 tensors without",
    ),
    "an optimizer alone": (
        {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        r"does not hold tensors by name; expected",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_one_line_that_matters(tmp_path: Path, kind: str) -> None:
    content, message = REFUSED[kind]
    torch.save(content, tmp_path / "w.pth")
    network = small_resnet(9)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(BackboneError, match=message) as caught:
        load_checkpoint(network, tmp_path / "w.pth", name="resnet10", classifier=lambda: "fc")
    assert len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()), "nothing is loaded"


def test_a_network_of_ones_own_takes_the_file_of_its_backbone_alone(tmp_path: Path) -> None:
    torch.save(HEADLESS, tmp_path / "w.pth")
    own = nn.ModuleDict({"backbone": small_resnet(9), "last": nn.Linear(5, 2)})
    own["backbone"].fc = nn.Identity()
    (first, second) = load_checkpoint(own, tmp_path / "w.pth", classifier=lambda: "last")
    assert first.endswith("the network's tensors are in it; backbone. was put before their names")
    assert "the last layer, last, is not in it" in second
    assert torch.equal(own.state_dict()["backbone.conv1.weight"], STATE["conv1.weight"])


def test_numbered_parts_are_said(tmp_path: Path) -> None:
    torch.save(under("backbone.", in_sequence(*BODY[:-1])), tmp_path / "w.pth")
    notes = load_checkpoint(small_resnet(9), tmp_path / "w.pth", classifier=lambda: "fc")
    assert "was taken off their names; its parts are numbered as in nn.Sequential (0 is conv1, 9 is fc)" in notes[0]


def small_vit(side: int = 32, seed: int = 0) -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionTransformer(side, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)


def test_a_vision_transformer_of_torchvisions_old_names_is_loaded(tmp_path: Path) -> None:
    state = small_vit(seed=1).state_dict()
    old = {n.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for n, t in state.items()}
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in old
    torch.save({"model": under("module.", old)}, tmp_path / "w.pth")
    loaded = small_vit()
    load_checkpoint(loaded, tmp_path / "w.pth", classifier=lambda: "heads.head")
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_position_embeddings_of_another_size_name_that_size(tmp_path: Path) -> None:
    torch.save(small_vit(48).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=r"\(1, 37, 8\) .* --crop 48 builds .*, --crop 32 interpolates"):
        load_checkpoint(small_vit(32), tmp_path / "w.pth", side=32, classifier=lambda: "heads.head")


def test_shards_with_an_index_are_one_file(tmp_path: Path) -> None:
    names = [*STATE]
    for number, part in enumerate((names[:20], names[20:])):
        save_file({name: STATE[name] for name in part}, tmp_path / f"model-{number}.safetensors")
    places = {name: f"model-{int(number >= 20)}.safetensors" for number, name in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for path in (index, tmp_path):
        loaded = small_resnet(9)
        load_checkpoint(loaded, path, classifier=lambda: "fc")
        assert all(torch.equal(tensor, STATE[name]) for name, tensor in loaded.state_dict().items())
    index.write_text(json.dumps({"weight_map": {**places, "more": "model-0.safetensors"}}))
    with pytest.raises(BackboneError, match=r"1 of its 75 tensors is in none of its shards, such as more"):
        load_checkpoint(small_resnet(9), index)
    for text in (json.dumps({"weight_map": {"a": "../model-0.safetensors"}}), "{", "[]", '{"weight_map": [1]}'):
        index.write_text(text)
        with pytest.raises(BackboneError, match=r"index\.json is not an index of shards, with a weight_map"):
            load_checkpoint(small_resnet(9), index)


def test_position_embeddings_beside_a_further_token_are_of_another_architecture(tmp_path: Path) -> None:
    state = small_vit(32).state_dict()
    further = {"encoder.pos_embedding": torch.ones(1, 18, 8), "dist_token": torch.ones(1, 1, 8)}
    torch.save({**state, **further}, tmp_path / "w.pth")
    with pytest.raises(
        BackboneError, match=r"\(1, 18, 8\) .* 1 tensor of it has no place .* dist_token\. Name"
    ) as caught:
        load_checkpoint(small_vit(32), tmp_path / "w.pth", side=32, classifier=lambda: "heads.head")
    assert "--crop" not in str(caught.value)


def test_a_classifier_around_the_embedding_must_be_the_networks_own(tmp_path: Path) -> None:
    def small(classifier: nn.Module) -> nn.Module:
        return nn.Sequential(OrderedDict(features=nn.Linear(3, 3), classifier=classifier))

    torch.save(small(nn.Linear(3, 2)).state_dict(), tmp_path / "w.pth")
    own = small(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5)))
    with pytest.raises(
        BackboneError, match=r"classifier\.0\.weight, which is missing\. Its classifier is another one, .*net\.py:make"
    ):
        load_checkpoint(own, tmp_path / "w.pth", name="own", classifier=lambda: "classifier.2")


def test_a_part_around_the_last_layer_of_which_some_tensors_fit_is_not_taken_for_another_classifier(
    tmp_path: Path,
) -> None:
    own = nn.ModuleDict({"text": nn.Linear(2, 2), "visual": nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))})
    state = {name: tensor for name, tensor in own.state_dict().items() if not name.startswith("visual.1.")}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=r"visual\.1\.weight, which is missing\. Name the architecture"):
        load_checkpoint(own, tmp_path / "w.pth", name="own", classifier=lambda: "visual.3")

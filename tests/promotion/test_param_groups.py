"""Which blocks of a network are trained, and at which learning rates."""

from __future__ import annotations

import pytest
from torch import nn

from featx.backbones import registry
from featx.backbones.blocks import block_names
from featx.errors import SettingsError
from featx.promotion.config import FineTuning
from featx.promotion.param_groups import TrainedBlocks, modules_in_eval_mode, parameter_groups, trained_blocks


def network(name: str = "mobilenet_v1_025") -> tuple[nn.Module, str]:
    built = registry.build(name, "random")
    return built.module, built.classifier or "fc"


def test_every_parameter_is_in_one_group_at_its_rate() -> None:
    module, classifier = network()
    settings = FineTuning(lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    groups = parameter_groups(module, trained_blocks(module, classifier, settings), settings)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    named = dict(module.named_parameters())
    assert len(rates) == len(named) == sum(len(g["params"]) for g in groups)
    for name, expected in {
        f"{classifier}.weight": (1e-3, 0.05),
        f"{classifier}.bias": (1e-3, 0.0),
        "features.13.1.0.weight": (1e-4, 0.05),
        "features.13.1.1.weight": (1e-4, 0.0),
        "features.12.0.0.weight": (5e-5, 0.05),
        "features.0.0.weight": (1e-4 * 0.5**13, 0.05),
    }.items():
        assert rates[id(named[name])] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        (FineTuning(), 0), (FineTuning(last=3), 11), (FineTuning(last=0), 14), (FineTuning(last=14), 0),
        (FineTuning(from_layer="features.12"), 12), (FineTuning(from_layer="features"), 0),
    ],
)  # fmt: skip
def test_what_lies_before_the_first_block_is_frozen(settings: FineTuning, first: int) -> None:
    module, classifier = network()
    trained = trained_blocks(module, classifier, settings)
    assert trained.first == first
    assert trained.first_layer == (classifier if first == 14 else f"features.{first}")
    parameter_groups(module, trained, settings)
    for name, parameter in module.named_parameters():
        place = 99 if name.startswith(classifier) else int(name.split(".")[1])
        assert parameter.requires_grad == (place >= first), name


def test_batch_norms_stay_in_eval_mode_unless_asked_and_frozen_blocks_always() -> None:
    module, classifier = network()
    names = tuple(block_names(module, classifier))
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(modules_in_eval_mode(module, TrainedBlocks(classifier, names, 2), train_bn=False)) == {
        *norms,
        module.features[0],
        module.features[1],
    }  # type: ignore[index]
    assert list(modules_in_eval_mode(module, TrainedBlocks(classifier, names, 1), train_bn=True)) == [
        module.features[0]
    ]  # type: ignore[index]


def test_an_unknown_block_is_an_error_that_lists_the_blocks() -> None:
    module, classifier = network("lenet5")
    names = r"features\.0, features\.3, features\.6, hidden\.1"
    with pytest.raises(SettingsError, match=rf"there is no block 'layer4' to train from; the blocks are {names}"):
        trained_blocks(module, classifier, FineTuning(from_layer="layer4"))
    with pytest.raises(SettingsError, match=rf"--last 5 is more than the 4 blocks of this network: {names}"):
        trained_blocks(module, classifier, FineTuning(last=5))

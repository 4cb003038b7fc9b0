"""The frozen first part of a network: cut off, run once, and the rest trained on what it gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made import Recorder
from torch import Tensor, nn

import featx
from featx.backbones.blocks import blocks
from featx.errors import StaleCacheError
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.layer_spec import RandomView
from featx.promotion.config import FineTuning
from featx.promotion.param_groups import Trained, trained
from featx.promotion.prefix import split
from featx.promotion.prefix_cache import Frozen, Seen
from featx.promotion.promotion import promote

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
VIEW = RandomView(0, 0, 0.35, flip=True)


@pytest.fixture
def features(split_photos: Path, in_tmp: Path) -> FeatureSet:
    """LeNet-5's features of 32 train and 16 val photographs."""
    return featx.extract(split_photos, "lenet5").load()


def network_of(name: str) -> featx.Backbone:
    return featx.load_backbone(name, weights="random", resize=64, crop=64)


@pytest.mark.parametrize(
    ("name", "last", "shape"),
    [
        ("resnet18", 2, (256, 4, 4)), ("resnet18", 0, (512,)), ("mobilenet_v1_025", 3, (128, 4, 4)),
        ("efficientnet_b0", 2, (192, 2, 2)), ("densenet121", 2, (512, 2, 2)), ("vgg11", 1, (4096,)),
        ("convnext_tiny", 3, (768, 2, 2)), ("squeezenet1_1", 1, (512, 3, 3)), ("swin_t", 1, (2, 2, 768)),
    ],
)  # fmt: skip
def test_the_two_parts_are_the_network_and_share_its_weights(name: str, last: int, shape: tuple[int, ...]) -> None:
    backbone = network_of(name)
    network, classifier = backbone.network, backbone.classifier
    parts = split(network, trained(network, classifier, FineTuning(last=last)), IMAGES)
    assert parts is not None
    assert parts.rest.shapes == (shape,)
    with torch.inference_mode():
        torch.testing.assert_close(parts.rest(parts.first(IMAGES)), network(IMAGES), rtol=1e-5, atol=1e-5)
    own = {id(p) for p in network.parameters()}
    used = {id(p) for p in parts.rest.parameters()}
    assert used <= own
    behind = [*blocks(network, classifier)[len(blocks(network, classifier)) - last :], classifier]
    assert {id(p) for name in behind for p in network.get_submodule(name).parameters()} <= used


def test_dropout_in_front_of_what_is_trained_is_drawn_anew_each_time() -> None:
    backbone = network_of("efficientnet_b0")
    network, classifier = backbone.network, backbone.classifier
    parts = split(network, trained(network, classifier, FineTuning(last=0)), IMAGES)
    assert parts is not None
    assert parts.rest.shapes == ((1280,),)
    network.train()
    assert any(isinstance(module, nn.Dropout) and module.training for module in parts.rest.modules())
    assert not any(isinstance(module, nn.Dropout) for module in parts.first.modules())


class Branching(nn.Module):
    """Looks at its input's values, which no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x) if x.mean() > 0 else self.body(-x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class Mixing(Branching):
    """What goes past the cut beside the block's output is of all images together."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean()
        return self.fc(self.body[1](self.body[0](x)).mean((2, 3)) + mean)  # type: ignore[no-any-return]


class Skipping(Branching):
    """What goes past the cut beside the block's output is each image's own."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        return self.fc(self.body[1](self.body[0](x)).mean((2, 3)) + mean.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Branching, Mixing])
def test_a_network_that_cannot_be_cut_is_not(kind: type[nn.Module]) -> None:
    assert split(kind().eval(), Trained("fc", ("body.0", "body.1"), 1), IMAGES) is None


def test_all_that_crosses_the_cut_is_kept() -> None:
    network = Skipping().eval()
    parts = split(network, Trained("fc", ("body.0", "body.1"), 1), IMAGES)
    assert parts is not None
    assert parts.rest.shapes == ((1, 1, 1), (4, 62, 62))
    assert parts.width == 1 + 4 * 62 * 62
    with torch.inference_mode():
        torch.testing.assert_close(parts.rest(parts.first(IMAGES)), network(IMAGES), rtol=1e-5, atol=1e-5)


def frozen_part(features: FeatureSet) -> Frozen:
    backbone = featx.load_backbone("lenet5")
    side = backbone.transform.crop
    which = trained(backbone.network, backbone.classifier, FineTuning(last=1))
    parts = split(backbone.network, which, torch.rand(2, 3, side, side))
    assert parts is not None
    return Frozen(parts, backbone, which.layer, features, Path("frozen"))


def test_activations_are_what_the_first_part_gives_and_are_kept(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = frozen_part(features)
    rows = np.flatnonzero(features.splits == "train")[::-1]

    def run(view: RandomView | None) -> np.ndarray:
        seen = Seen(rows, view)
        frozen.compute(seen, workers=2)
        return frozen.load(seen).of(rows)

    needed = frozen.need([Seen(rows, None), Seen(rows, VIEW)])
    plain = run(None)
    assert plain.dtype == np.float16
    assert needed == 2 * plain.nbytes
    assert frozen.need([Seen(rows, None), Seen(rows, VIEW)]) == plain.nbytes, "of what is there nothing is needed"
    from featx.backbones.backbone import normalise
    from featx.data.decode import read_pixels

    root, transform = Path(features.dataset["root"]), frozen.backbone.transform
    pixels = np.stack([read_pixels((root / str(path)).read_bytes(), transform) for path in features.paths[rows]])
    with torch.inference_mode():
        expected = frozen.parts.first(normalise(torch.from_numpy(pixels), transform)).flatten(1)
    np.testing.assert_allclose(plain, expected.numpy(), rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(frozen.load(Seen(rows, None)).of(rows[[3, 1]]), plain[[3, 1]])
    seen = [run(RandomView(k, 0, 0.35, flip=True)) for k in range(2)]
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], plain)
    monkeypatch.setattr("featx.extraction.pipeline.execute", lambda *_: pytest.fail("it was computed again"))
    np.testing.assert_array_equal(run(VIEW), seen[0])
    assert not (
        set(frozen.backbone.identities.values())
        & {featx.features.feature_file.FeatureFile(p).identity for p in Path("frozen").glob("*.h5")}
    )


def test_an_image_that_changed_is_named(features: FeatureSet, split_photos: Path, make_image) -> None:
    frozen, seen = frozen_part(features), Seen(np.arange(len(features.paths)), None)
    make_image(split_photos / "train" / "dark" / "00.png", seed=999)
    frozen.compute(seen, workers=1)
    with pytest.raises(StaleCacheError, match=r"train/dark/00\.png: it has changed since its features were extracted"):
        frozen.load(seen)


def test_room_is_half_of_what_is_free(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    frozen = frozen_part(features)
    assert frozen.has_room(500)
    assert not frozen.has_room(501)


def test_training_from_the_cache_is_training_in_the_ordinary_way(features: FeatureSet, tmp_path: Path) -> None:
    head = Head("logreg").fit(features)
    told = Recorder()
    states = []
    for views in (0, 1):
        settings = FineTuning(epochs=2, lr=1e-3, batch_size=8, last=1, augment="none", views=views)
        result = promote(head, finetune=True, settings=settings, out=tmp_path / f"{views}.safetensors", reporter=told)
        states.append([(entry["loss"], entry["log_loss"]) for entry in result.log[1:]])
        assert not result.notes
    np.testing.assert_allclose(states[0], states[1], rtol=1e-2)
    assert len(told.notes) == 1
    assert told.notes[0].startswith("caching 32 outputs of the frozen part, which enter hidden.1: ")
    assert len(list(Path("cache/frozen").glob("*.h5"))) == 1


@pytest.mark.parametrize("why", ["disk", "randaugment"])
def test_where_outputs_cannot_be_cached_the_frozen_part_runs_in_every_epoch(
    features: FeatureSet, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head("logreg").fit(features)
    if why == "disk":
        monkeypatch.setattr(Frozen, "has_room", lambda *_: False)
    settings = FineTuning(epochs=1, last=1, augment="randaugment" if why == "randaugment" else "crop")
    result = promote(head, finetune=True, settings=settings)
    assert result.epochs == 1
    assert {"disk": "over half of what is free", "randaugment": "not for randaugment"}[why] in result.notes[0]
    assert not Path("cache/frozen").exists()

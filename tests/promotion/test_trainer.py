"""The training loop: what it trains, and how it recovers from interruptions, divergence and lack of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from made import Recorder
from torch import Tensor, nn
from torch.nn import functional as F

from featx.errors import PromotionError
from featx.extraction.engines import installed
from featx.promotion.checkpoint import Checkpoint
from featx.promotion.config import FineTuning
from featx.promotion.history import TrainingProgress, ValidationScore
from featx.promotion.param_groups import trained_blocks
from featx.promotion.targets import Targets
from featx.promotion.trainer import Trainer, train
from featx.reporter import Reporter

CLASSES, IMAGES = 3, 48


def made(seed: int = 0) -> nn.Module:
    """Two blocks with batch norm and dropout, and a classifier."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        blocks = [
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in ((3, 4), (4, 6))
        ]
        network = nn.Sequential()
        network.add_module("features", nn.Sequential(*blocks))
        network.add_module("rest", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)))
        network.add_module("fc", nn.Linear(6, CLASSES))
    return network.eval()


class Noise:
    """A source of noise in which each class has a colour."""

    n_images, n_classes = IMAGES, CLASSES

    def __init__(self, network: nn.Module, batch: int = 16) -> None:
        rng = np.random.default_rng(0)
        self.network, self.batch = network, batch
        labels = rng.integers(0, CLASSES, 2 * IMAGES)
        pixels = rng.normal(size=(2 * IMAGES, 3, 8, 8)) + 3.0 * np.eye(3)[labels][:, :, None, None]
        self.x, self.y = torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(labels)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Targets]]:
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(IMAGES))
        for rows in order.split(self.batch):
            yield self.x[rows], Targets(self.y[rows])

    def validate(self) -> ValidationScore:
        assert not self.network.training
        with torch.inference_mode():
            out = self.network(self.x[IMAGES:])
        correct = (out.argmax(1) == self.y[IMAGES:]).double().mean()
        return ValidationScore(float(correct), float(F.cross_entropy(out, self.y[IMAGES:])))


def settings(**given: object) -> FineTuning:
    return FineTuning(**({"epochs": 3, "lr": 1e-2, "backbone_lr": 0.5, "batch_size": 16, "patience": 9} | given))  # type: ignore[arg-type]


def begun(how: FineTuning, network: nn.Module | None = None, **given: object) -> tuple[Trainer, Noise]:
    network = network or made()
    trainer = Trainer(network, network, trained_blocks(network, "fc", how), how, n_images=IMAGES, **given)  # type: ignore[arg-type]
    return trainer, Noise(network, how.batch_size)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def moved(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "model.safetensors", {})


EVERY = [
    settings(), settings(optimizer="sgd", lr=0.1), settings(ema=0.9), settings(mixup=0.4, label_smoothing=0.1),
    settings(train_bn=True), settings(last=1),
]  # fmt: skip


@pytest.mark.parametrize("how", EVERY)
def test_training_lowers_the_loss_and_keeps_what_did_best(how: FineTuning, checkpoint: Checkpoint) -> None:
    trainer, source = begun(how)
    run = train(trainer, source, checkpoint)
    assert [entry["epoch"] for entry in run.log] == [0, 1, 2, 3]
    assert run.best_epoch == min(run.log, key=lambda entry: entry["log_loss"] or 0)["epoch"] > 0
    assert run.curve[run.alpha] == min(run.curve.values())
    assert source.validate().log_loss == pytest.approx(run.curve[run.alpha], rel=1e-6)
    assert run.curve[1.0] == run.best.log_loss < run.curve[0.0] == run.log[0]["log_loss"]


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("killed_after", [1, 4, 8])
def test_a_killed_run_is_resumed_and_ends_at_the_very_same_weights(
    how: FineTuning, killed_after: int, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    whole, source = begun(how)
    expected = train(whole, source, Checkpoint(tmp_path / "other.safetensors", {}))

    class Killed(BaseException): ...

    def kill(step: TrainingProgress) -> None:
        nonlocal steps
        steps += 1
        if steps == killed_after:
            raise Killed

    steps = 0
    trainer, source = begun(how)
    with pytest.raises(Killed):
        train(trainer, source, checkpoint, reporter=Recorder(kill))
    torch.rand(3)  # another process has other chance
    again, source = begun(how)
    run = train(again, source, checkpoint)
    assert not moved(weights(whole.network), again.network)
    drop = ("seconds",)
    assert [{k: v for k, v in e.items() if k not in drop} for e in run.log] == [
        {k: v for k, v in e.items() if k not in drop} for e in expected.log
    ]
    assert run.notes == [f"resumed from the checkpoint of epoch {(killed_after - 1) // 3}"]


def test_a_checkpoint_that_cannot_be_used_is_kept_and_named(checkpoint: Checkpoint) -> None:
    checkpoint.path.write_bytes(b"of another version")
    notes: list[str] = []

    class Noted(Reporter):
        def note(self, sentence: str) -> None:
            notes.append(sentence)

    trainer, source = begun(settings(last=1))
    train(trainer, source, checkpoint, reporter=Noted())
    aside = checkpoint.path.with_name(checkpoint.path.name + ".unusable")
    assert aside.read_bytes() == b"of another version"
    assert notes == [
        f"{checkpoint.path.name} is damaged, or of another version of featx, so training starts anew; the file is kept as "
        f"{aside.name}"
    ]


def test_a_compiled_network_trains_and_is_resumed_as_the_plain_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    if "compile" not in installed():
        pytest.skip("no C++ compiler")
    plain, source = begun(settings(last=1))
    expected = train(plain, source, Checkpoint(tmp_path / "other.safetensors", {}))
    half, source = begun(settings(last=1, compile=True))

    def stop(step: TrainingProgress) -> None:
        if (step.epoch, step.done) == (3, 32):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(half, source, checkpoint, reporter=Recorder(stop))
    ends = []
    for kept in (checkpoint, Checkpoint(tmp_path / "third.safetensors", {})):
        trainer, source = begun(settings(last=1, compile=True))
        run = train(trainer, source, kept)
        ends.append(weights(trainer.network))
        assert [e["log_loss"] for e in run.log] == pytest.approx([e["log_loss"] for e in expected.log], rel=0.05)
    assert not moved(ends[0], trainer.network)


def test_compilation_that_fails_is_an_error_that_names_the_option(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(PromotionError, match=r"--compile needs a GPU or a C\+\+ compiler \(g\+\+\), and cpu has none"):
        begun(settings(compile=True))

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch._dynamo.exc.Unsupported("what is this")

    monkeypatch.setattr("featx.promotion.trainer.installed", lambda _: ("compile",))
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: Odd())
    with pytest.raises(
        PromotionError, match=r"torch.compile cannot train this network: .*what is this.*leave out --compile"
    ):
        train(*begun(settings(compile=True)), checkpoint)


def test_training_that_is_done_is_not_done_again(checkpoint: Checkpoint) -> None:
    train(*begun(settings()), checkpoint)
    trainer, source = begun(settings())
    trainer.train_epoch = lambda *_: pytest.fail("it was trained")  # type: ignore[method-assign]
    assert train(trainer, source, checkpoint).epoch == 3


def test_training_stops_early_and_the_head_may_stay_the_best(checkpoint: Checkpoint) -> None:
    trainer, source = begun(settings(patience=2, epochs=9))
    scores = [ValidationScore(1, loss) for loss in (0.1, 0.3, 0.2, 0.4, 0.5, 0.13, 0.15, 0.17)]
    source.validate = iter(scores).__next__  # type: ignore[method-assign]
    before = weights(trainer.network)
    run = train(trainer, source, checkpoint)
    assert (run.epoch, run.best_epoch, run.alpha) == (4, 2, 0.0)
    assert run.curve == {0.0: 0.1, 0.25: 0.13, 0.5: 0.15, 0.75: 0.17, 1.0: 0.2}
    assert not moved(before, trainer.network)


def test_weights_between_the_head_and_an_epoch_may_be_better_than_both(checkpoint: Checkpoint) -> None:
    trainer, source = begun(settings(epochs=1))
    before = weights(trainer.network)
    source.validate = iter([ValidationScore(1, loss) for loss in (0.3, 0.4, 0.25, 0.1, 0.2)]).__next__  # type: ignore[method-assign]
    assert train(trainer, source, checkpoint).alpha == 0.5
    for name, tensor in trainer.network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (before[name] + trainer.best_state[name]) / 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4])
def test_training_that_diverges_goes_back_to_the_last_good_epoch_at_half_the_rate(
    value: float, checkpoint: Checkpoint
) -> None:
    trainer, source = begun(settings())
    honest, tries = trainer.train_epoch, []

    def epoch(number: int, *rest: object) -> float:
        tries.append((number, trainer.rate_scale))
        loss = honest(number, *rest)  # type: ignore[arg-type]
        if tries.count((2, 1.0)) == 1 and number == 2 and trainer.rate_scale == 1:
            for parameter in trainer.network.parameters():
                parameter.data.fill_(torch.nan)
            return value
        return loss

    trainer.train_epoch = epoch  # type: ignore[method-assign]
    run = train(trainer, source, checkpoint)
    assert tries == [(1, 1.0), (2, 1.0), (2, 0.5), (3, 0.5)]
    assert run.notes == [
        f"the training loss became {value:.4g} in epoch 2; training resumed from epoch 1 at half the learning rate"
    ]
    assert run.epoch == 3
    assert np.isfinite(source.validate().log_loss)


def test_training_that_diverges_for_good_ends_with_the_best_so_far(checkpoint: Checkpoint) -> None:
    trainer, source = begun(settings())
    honest = trainer.train_epoch
    trainer.train_epoch = lambda number, *rest: honest(number, *rest) if number == 1 else float("nan")  # type: ignore[method-assign]
    run = train(trainer, source, checkpoint)
    assert (run.epoch, run.best_epoch) == (1, 1)
    assert (
        run.notes[-1]
        == "the training loss became nan in epoch 2, even at a learning rate of 0.0025; training ended there"
    )
    assert source.validate().log_loss == pytest.approx(run.curve[run.alpha])


def test_a_rate_far_too_high_ends_with_the_head(checkpoint: Checkpoint) -> None:
    trainer, source = begun(settings(lr=1e8, optimizer="sgd", clip=1e9, weight_decay=0))
    before = weights(trainer.network)
    run = train(trainer, source, checkpoint)
    assert (run.alpha, len(run.notes)) == (0.0, 3)
    assert not moved(before, trainer.network)


def test_a_batch_that_does_not_fit_is_split_into_micro_batches_to_the_same_weights(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    network = made()
    network.rest[2] = nn.Identity()  # type: ignore[index, union-attr] - dropout draws other masks for micro-batches
    whole, source = begun(settings(epochs=1), network)
    train(whole, source, Checkpoint(tmp_path / "other.safetensors", {}))
    network = made()
    network.rest[2] = nn.Identity()  # type: ignore[index, union-attr]
    trainer, source = begun(settings(epochs=1), network)
    honest = trainer.module

    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return honest(x)  # type: ignore[no-any-return]

    trainer.module = Small()
    run = train(trainer, source, checkpoint)
    assert run.accumulation_steps == 4
    assert run.notes == [
        f"a batch of 16 images did not fit in memory, so gradients are accumulated over {n} micro-batches"
        for n in (2, 4)
    ]
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(trainer.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_memory_for_not_even_one_image_is_an_error(checkpoint: Checkpoint) -> None:
    trainer, source = begun(settings())

    def full(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.train_epoch = full  # type: ignore[method-assign]
    with pytest.raises(PromotionError, match=r"not even one image at a time fits on cpu; try --last 1"):
        train(trainer, source, checkpoint)


def test_frozen_blocks_and_batch_norms_do_not_move(checkpoint: Checkpoint) -> None:
    for how, expected in [
        (settings(last=0), {"fc.weight", "fc.bias"}),
        (settings(last=1), {"features.1.0.weight", "features.1.0.bias", "features.1.1.weight", "features.1.1.bias"}),
        (settings(train_bn=True, last=1), {"features.1.1.running_mean", "features.1.1.num_batches_tracked"}),
        (settings(), {"features.0.0.weight"}),
    ]:
        trainer, source = begun(how)
        before = weights(trainer.network)
        trainer.train_epoch(1, source, lambda *_: None)
        changed = moved(before, trainer.network)
        assert expected <= changed
        assert "fc.weight" in changed
        assert any("running" in name for name in changed) == how.train_bn
        assert any(name.startswith("features.0") for name in changed) == (how.last is None)
        assert any(name.startswith("features.1") for name in changed) == (how.last != 0)


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    trainer, source = begun(settings(epochs=10, warmup=0.2))
    rates = []
    for epoch in range(10):
        trainer.train_epoch(epoch, source, lambda *_: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    highest = trainer.peak_rates[0]
    np.testing.assert_allclose(rates[:3], [highest / 6, highest / 3, highest / 2])
    np.testing.assert_allclose(rates[6:], [highest * 0.5 * (1 + np.cos(np.pi * step / 30)) for step in range(6, 30)])


def test_the_average_of_the_weights_is_what_is_validated(checkpoint: Checkpoint) -> None:
    trainer, source = begun(settings(ema=0.5, epochs=1))
    average = {name: tensor.clone().double() for name, tensor in trainer.ema_weights.items()}

    def follow(images: int, loss: float) -> None:
        for name, parameter in trainer.network.named_parameters():
            average[name] = 0.5 * average[name] + 0.5 * parameter.detach().double()

    trainer.train_epoch(1, source, follow)
    own = weights(trainer.network)
    with trainer.averaged_weights():
        for name, parameter in trainer.network.named_parameters():
            torch.testing.assert_close(parameter.detach().double(), average[name], rtol=1e-4, atol=1e-6)
    assert not moved(own, trainer.network)


def test_classes_have_the_weights_that_are_given(checkpoint: Checkpoint) -> None:
    trainer, source = begun(settings(), class_weights=np.array([0.0, 0.0, 1.0]))
    for epoch in range(1, 6):
        trainer.train_epoch(epoch, source, lambda *_: None)
    with torch.inference_mode():
        assert (trainer.network(source.x).argmax(1) == 2).all()


def test_mixing_pairs_mixes_their_losses() -> None:
    trainer, source = begun(settings(mixup=1.0, weight_decay=0))
    x, y = source.x[:16], source.y[:16]
    trainer.network.eval()
    share = float(np.random.default_rng(5).beta(1.0, 1.0))
    with torch.inference_mode():
        out = trainer.network(share * x + (1 - share) * x.flip(0))
        expected = share * F.cross_entropy(out, y) + (1 - share) * F.cross_entropy(out, y.flip(0))
    assert trainer.train_step(x, Targets(y), 16, np.random.default_rng(5)) == pytest.approx(
        16 * float(expected), rel=1e-5
    )

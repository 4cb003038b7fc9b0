"""``featx promote``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from featx.cli.options import BACKBONE_AGAIN, DEVICE, JSON, MODELS_FOLDER, POSITIVE, SHARE, WORKERS
from featx.cli.output import print_notes, print_result
from featx.cli.progress import progress_bar
from featx.promotion.config import AUGMENTATIONS, OPTIMIZERS
from featx.system import started
from featx.workflows.recipe import PromoteStep

if TYPE_CHECKING:  # commands import what they need when they run: --help answers at once
    from featx.promotion.finetune_run import FineTuningRun
    from featx.promotion.promotion import Promotion


def _tuned(name: str, **how: Any) -> Callable[[Any], Any]:
    """An option of promote with the default of its step."""
    default = getattr(PromoteStep, name.removeprefix("--").replace("-", "_"))
    return click.option(name, default=default, show_default=True, **how)


def show_promotion(result: Promotion) -> None:
    """Print what a promotion gave."""
    click.echo(
        f"assembled {result.head}: on {result.proof.images} images the network's logits are the head's "
        f"(largest difference {result.proof.largest:.2g}, mean {result.proof.mean:.2g})"
    )
    if result.run:
        _show_trial(result, result.run)
    click.echo(f"{result.verdict}: {result.why} ({result.seconds:.1f} s)")
    click.echo(f"model: {result.path}")
    if result.run:
        click.echo(f"epochs: {result.path.with_suffix('.csv')}, {result.path.with_suffix('.png')}")


def _show_trial(result: Promotion, run: FineTuningRun) -> None:
    history = run.history
    click.echo(f"chosen on {run.chosen_on}; there the head's accuracy is {run.start.accuracy:.4f} by its features:")
    click.echo("epoch  training loss  log loss  accuracy")
    for entry in history.log:
        loss = f"{entry['loss']:13.4f}" if entry["epoch"] else "     the head"
        mark = "  *" if entry["epoch"] == history.best_epoch else ""
        click.echo(f"{entry['epoch']:5}  {loss}  {entry['log_loss']:8.4f}  {entry['accuracy']:8.4f}{mark}")
    if len(history.curve) > 1:
        shown = ", ".join(f"{alpha:g}: {loss:.4f}" for alpha, loss in history.curve.items())
        click.echo(f"log loss from the head's weights (0) to epoch {history.best_epoch}'s (1): {shown}")
    click.echo()
    rows = [("head", result.head_report), ("fine-tuned", run.report)][: 2 if history.alpha else 1]
    click.echo(
        f"{'':<10}  accuracy  95 % interval     log loss  (same {result.report.n} images of split {result.report.split})"
    )
    for name, report in rows:
        low, high = report.interval
        click.echo(f"{name:<10}  {report.accuracy:8.4f}  {low:.4f} to {high:.4f}  {report.log_loss:8.4f}")
    if result.report.reject_below is not None:
        accepted = ", ".join(f"{name} {report.accepted} ({report.accepted_right} right)" for name, report in rows)
        click.echo(f"of probability at least {result.report.reject_below:.4g}, where something is said: {accepted}")
    if result.repeats:
        click.echo("\nother splits  images    head  fine-tuned")
        for number, other in enumerate(result.repeats, start=1):
            click.echo(
                f"{number:12}  {other.paired.n:6}  {other.paired.head_accuracy:.4f}  {other.report.accuracy:10.4f}"
            )
    click.echo()


@click.command(short_help="Turn a head and its backbone into one network.")
@click.argument("head", required=False)
@click.option("--finetune", is_flag=True, help="Train the network, from the head on.")
@_tuned("--epochs", type=click.IntRange(min=1), help="At most.")
@_tuned("--lr", type=POSITIVE, help="Of the head, at its highest.")
@_tuned("--backbone-lr", type=POSITIVE, help="Share of it for the backbone's last block.")
@_tuned("--layer-decay", type=SHARE, help="Share of a block's rate for the block before it.")
@click.option(
    "--from",
    "--from-layer",
    "from_layer",
    metavar="BLOCK",
    help="Train from this block on, such as layer4; by default all.",
)
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="Train the last N blocks; 0 is the head alone.")
@click.option(
    "--train-bn/--freeze-bn",
    default=PromoteStep.train_bn,
    show_default=True,
    help="Whether batch norm's statistics move.",
)
@_tuned("--optimizer", type=click.Choice(OPTIMIZERS), help="AdamW, or SGD with Nesterov's momentum.")
@_tuned("--weight-decay", type=click.FloatRange(min=0), help="Not on norms and biases.")
@_tuned("--clip", type=POSITIVE, help="Largest norm of the gradient.")
@_tuned("--batch-size", type=click.IntRange(min=1), help="Images per step.")
@_tuned("--warmup", type=click.FloatRange(0, 1, max_open=True), help="Share of all steps; then cosine.")
@_tuned("--patience", type=click.IntRange(min=1), help="Epochs without a better one.")
@_tuned("--augment", type=click.Choice(AUGMENTATIONS), help="How training images are varied.")
@_tuned("--crop-scale", type=SHARE, help="Least share of the image kept.")
@click.option("--flip/--no-flip", default=PromoteStep.flip, show_default=True, help="Mirror half of the images.")
@_tuned("--mixup", type=click.FloatRange(min=0), help="Mix pairs by shares of Beta(mixup, mixup).")
@_tuned("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), help="Share spread over all classes.")
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Each class counts alike in the loss.")
@_tuned("--ema", type=click.FloatRange(0, 1, max_open=True), help="Decay per step of an average of the weights.")
@_tuned(
    "--cached-crops",
    type=click.IntRange(min=0),
    help="Random crops of each image whose activations are cached where blocks are frozen; 0 caches none.",
)
@click.option("--compile", is_flag=True, help="Train by torch.compile: for long runs, since it takes a minute first.")
@click.option(
    "--interpolate/--no-interpolate",
    default=PromoteStep.interpolate,
    show_default=True,
    help="Try weights between the head's and the tuned ones (WiSE-FT).",
)
@_tuned("--significance", type=SHARE, help="Promote where luck would do as well this often at most.")
@_tuned(
    "--repeats",
    type=click.IntRange(min=0),
    metavar="K",
    help="Where a gain may be luck, ask up to K other splits; together they judge every image.",
)
@_tuned("--seed", help="Of order, crops, mixing and dropout.")
@click.option("--features", help="The feature file, where it is not the one that the head names.")
@BACKBONE_AGAIN
@DEVICE
@WORKERS
@click.option("--tensorboard", is_flag=True, help="Write the epochs for TensorBoard too, into <model>.tensorboard.")
@MODELS_FOLDER
@click.option("-o", "--out", metavar="FILE", help="The model's file, instead of one named in the models folder.")
@JSON
def promote(as_json: bool, **options: Any) -> None:
    """Move HEAD onto its backbone as one network, prove that it is the same classifier, and fine-tune it if asked.

    HEAD is a head's file; left out, the newest in the models folder. The epoch is chosen on split val, or on training
    images that are held back; the verdict falls on images that chose nothing. A fine-tuned network that is not proved to
    beat the head on them is not kept: the model is then the head on its backbone. An interrupted run goes on from its last
    epoch when the same command is given again. On several GPUs: torchrun --nproc-per-node 4 -m featx promote --finetune

    Example: featx promote --finetune --last 3 --epochs 20
    """
    with progress_bar("finetune", "images") as reporter:
        result = PromoteStep(**options).run(reporter)
    if started()[0] == 0:
        print_result(result.as_dict() if as_json else None, lambda: show_promotion(result))
        print_notes(*result.notes)

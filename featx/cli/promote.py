"""``featx promote``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.arguments import path_of
from featx.cli.job import JobCommand
from featx.cli.needs import ALWAYS, Condition, Needs, with_option
from featx.cli.option_groups import option
from featx.cli.options import (
    COUNT,
    DEVICE,
    DURATION,
    HEAD_TABLE,
    MODELS_FOLDER,
    POSITIVE,
    SHARE,
    SHARE_BELOW_1,
    SOURCE_BACKBONE,
    TRACKING,
    WORKERS,
    needing,
)
from featx.cli.output import print_places
from featx.promotion.config import AUGMENTATIONS, OPTIMIZERS, FineTuning, in_words
from featx.reporter import Reporter, stage_of_import
from featx.text import counted, duration_text

if TYPE_CHECKING:  # a command imports what it needs when it runs, so that --help answers at once
    from featx.promotion.finetune_run import FineTuningRun
    from featx.promotion.promotion import Promotion
    from featx.promotion.search import SearchResult
    from featx.promotion.teacher import TeacherComparison

_FIELDS = frozenset(field.name for field in dataclasses.fields(FineTuning))


_FINETUNE = with_option("finetune", "--finetune")
_TAUGHT = (_FINETUNE, with_option("teacher", "--teacher"))


def _last(least: int, words: str) -> tuple[Needs, Needs]:
    """Fine-tuning of at least so many blocks of the backbone."""
    return _FINETUNE, Needs(words, lambda options: options["last"] is None or options["last"] >= least)


_BACKBONE = _last(1, "with --last 0, which trains the head alone")
_BLOCKS = _last(2, "with --last below 2, which trains at most one block")
_AUGMENT = (_FINETUNE, Needs("with --augment none", lambda options: options["augment"] != "none"))
_FROZEN = (
    _FINETUNE,
    Needs("without --last or --from", lambda options: options["last"] is not None or options["from_layer"] is not None),
)


def _tuning(
    *names: str, section: str = "Advanced", needs: Condition = _FINETUNE, **attributes: Any
) -> Callable[[Any], Any]:
    """An option with the name and the default of a field of ``FineTuning``."""
    declared = next((name for name in names if not name.startswith("-")), names[0])
    field = declared.split("/")[0].removeprefix("--").replace("-", "_")
    default = getattr(FineTuning, field)
    shown = {"show_default": default is not None, **attributes}
    return option(*names, default=default, section=section, needs=needs, **shown)


def _settings(options: Mapping[str, Any]) -> FineTuning:
    """The settings of fine-tuning, out of all options of the command."""
    return FineTuning(**{name: value for name, value in options.items() if name in _FIELDS})


def _check(options: Mapping[str, Any]) -> None:
    _settings(options)  # it raises where settings are out of range or exclude one another


def show_promotion(result: Promotion) -> None:
    """Print what a promotion gave."""
    click.echo(
        f"assembled {result.head}: on {counted(result.proof.images, 'image')} the logits of the network equal those of "
        f"the head (largest difference {result.proof.largest:.2g}, mean {result.proof.mean:.2g})"
    )
    if result.run:
        if result.run.search:
            _show_search(result.run.search)
        _show_history(result.run)
        _show_comparison(result, result.run)
    click.echo(f"{result.verdict}: {result.why} ({result.seconds:.1f} s)")
    click.echo(f"model: {result.path}")
    if result.run:
        further = f", {result.path.with_suffix('.random.png')}" if result.run.courses else ""
        click.echo(f"epochs: {result.path.with_suffix('.csv')}, {result.path.with_suffix('.png')}{further}")
        if result.run.search:
            click.echo(f"trials: {result.path.with_suffix('.search.csv')}")
    print_places(result.tracked)


def _show_search(search: SearchResult) -> None:
    """Print the settings that reached the last stages of a search, and the choice."""
    trials = [trial for trial in search.trials if trial.stage > 1]
    click.echo(
        f"{counted(search.n_settings, 'setting')} tried in {duration_text(search.seconds)} on folds of the training images; "
        f"{'those that were trained to the end:' if trials else 'none was trained to the end'}"
    )
    if trials:
        click.echo("folds  log loss  accuracy")
    for setting in dict.fromkeys(trial.setting for trial in trials):
        own = [trial for trial in trials if trial.setting == setting]
        loss, accuracy = (sum(getattr(t, name) for t in own) / len(own) for name in ("log_loss", "accuracy"))
        click.echo(f"{len(own):5}  {loss:8.4f}  {accuracy:8.4f}  {in_words(own[0].changes)}")
    click.echo(f"chosen: {search.why}\n")


def _show_history(run: FineTuningRun) -> None:
    """Print the epochs, evaluated on the validation images, and the interpolation of the weights."""
    history = run.history
    click.echo(
        f"epochs are compared on {run.chosen_on}, where the head has an accuracy of {run.start.accuracy:.4f} on cached "
        "features:"
    )
    click.echo("epoch  training loss  log loss  accuracy")
    for entry in history.log:
        loss = f"{entry['loss']:13.4f}" if entry["epoch"] else "     the head"
        mark = "  *" if entry["epoch"] == history.best_epoch else ""
        click.echo(f"{entry['epoch']:5}  {loss}  {entry['log_loss']:8.4f}  {entry['accuracy']:8.4f}{mark}")
    if len(history.curve) > 1:
        shown = ", ".join(f"{alpha:g}: {loss:.4f}" for alpha, loss in history.curve.items())
        click.echo(f"log loss from the head's weights (0) to those of epoch {history.best_epoch} (1): {shown}")


def _show_comparison(result: Promotion, run: FineTuningRun) -> None:
    """Print the head and the fine-tuned network side by side, on the same images."""
    click.echo()
    rows = [("head", result.head_report), ("fine-tuned", run.report)][: 2 if run.history.alpha else 1]
    click.echo(
        f"{'':<10}  accuracy  95 % interval     log loss  (same {counted(result.report.n, 'image')} of split "
        f"{result.report.split})"
    )
    for name, report in rows:
        low, high = report.interval
        click.echo(f"{name:<10}  {report.accuracy:8.4f}  {low:.4f} to {high:.4f}  {report.log_loss:8.4f}")
    always, _, share = str(result.report.baseline).rpartition(" ")
    click.echo(f"{'baseline':<10}  {share:>8}  {always}")
    if result.report.reject_below is not None:
        accepted = ", ".join(f"{name} {report.accepted} ({report.accepted_right} right)" for name, report in rows)
        click.echo(f"accepted predictions, of a probability of at least {result.report.reject_below:.4g}: {accepted}")
    click.echo(
        f"{100 * run.paired.gained / run.paired.n:+.1f} points of accuracy in {duration_text(run.seconds)} of training: "
        f"{run.gain_per_minute:+.2f} points a minute"
    )
    if run.teacher:
        _show_teacher(run.teacher)
    for course in run.courses:
        low, high = course.report.interval
        click.echo(
            f"from {course.name}, {counted(len(course.log) - 1, 'epoch')} in {duration_text(course.seconds)}: accuracy "
            f"{course.report.accuracy:.4f}, {low:.4f} to {high:.4f}, on the same images"
        )
    if result.repeats:
        click.echo("\nother splits  images    head  fine-tuned")
        for number, other in enumerate(result.repeats, start=1):
            click.echo(
                f"{number:12}  {other.paired.n:6}  {other.paired.first_accuracy:.4f}  {other.report.accuracy:10.4f}"
            )
    click.echo()


def _show_teacher(teacher: TeacherComparison) -> None:
    """Print the network beside its teacher."""
    paired = teacher.paired
    alone = counted(len(paired.first_only), "image")
    click.echo(
        f"the teacher {teacher.name} has accuracy {teacher.accuracy:.4f}: it alone is right on {alone}, the network alone on "
        f"{len(paired.second_only)} (p = {paired.p_value:.2g} by {paired.method})"
    )
    speeds = zip(("teacher", "network"), teacher.images_per_second, strict=True)
    known = [f"the {name} {speed:,.0f}" for name, speed in speeds if speed is not None]
    if known:
        click.echo(f"images/s, without reading and decoding: {', '.join(known)}")


@click.command(
    "promote", cls=JobCommand, show=show_promotion, progress=("promote", "images"), check=_check,
    short_help="Turn a head and its backbone into one network, and fine-tune it.",
    examples=(
        "featx promote --finetune",
        "featx promote --finetune --last 3 --epochs 20",
        "featx promote --finetune --search 12 --budget 5min",
        "torchrun --nproc-per-node 4 -m featx promote --finetune",
    ),
)  # fmt: skip
@click.argument("head", required=False)
@option(
    "--finetune", is_flag=True, section="Fine-tuning", needs=ALWAYS, help="Fine-tune the network, starting at the head."
)
@option(
    "--teacher", section="Advanced", needs=_FINETUNE, metavar="FILE",
    help="Head or model whose probabilities the network learns beside the labels (distillation).",
)  # fmt: skip
@_tuning("--epochs", type=COUNT, section="Fine-tuning", metavar="N", help="Largest number of epochs.")
@_tuning("--lr", type=POSITIVE, section="Fine-tuning", metavar="RATE", help="Peak learning rate of the head.")
@_tuning(
    "--backbone-lr", type=POSITIVE, needs=_BACKBONE, metavar="SHARE",
    help="Learning rate of the last block of the backbone, as a share of --lr.",
)  # fmt: skip
@_tuning(
    "--layer-decay", type=SHARE, needs=_BLOCKS, metavar="SHARE",
    help="Learning rate of each block, as a share of that of the block after it.",
)  # fmt: skip
@_tuning(
    "--from", "--from-layer", "from_layer", section="Fine-tuning", metavar="BLOCK",
    help="First block to train, such as layer4; by default all are trained.",
)  # fmt: skip
@_tuning(
    "--part", metavar="NAME",
    help="Of a head on several backbones, the one to train, by name or number; the others stay as they are. By default the one "
    "whose features alone have the least log loss on the validation images.",
)  # fmt: skip
@_tuning(
    "--last", type=click.IntRange(min=0), section="Fine-tuning", metavar="N",
    help="Train only the last N blocks; 0: the head alone.",
)  # fmt: skip
@_tuning(
    "--train-bn/--freeze-bn", needs=_BACKBONE, help="Update the statistics of batch normalisation, or freeze them."
)
@_tuning("--optimizer", type=click.Choice(OPTIMIZERS), help="Optimizer: AdamW, or SGD with Nesterov momentum.")
@_tuning(
    "--weight-decay", type=click.FloatRange(min=0), metavar="DECAY",
    help="Weight decay of all parameters but those of norms and biases.",
)  # fmt: skip
@_tuning("--clip", type=POSITIVE, metavar="NORM", help="Largest norm of the gradient; a larger one is clipped.")
@_tuning("--batch-size", type=COUNT, metavar="N", help="Number of images per step.")
@_tuning(
    "--warmup", type=SHARE_BELOW_1, metavar="SHARE",
    help="Share of all steps in which the learning rate rises; then it falls as a cosine.",
)  # fmt: skip
@_tuning(
    "--patience", type=click.IntRange(min=0), metavar="N",
    help="Number of epochs without improvement after which training stops; 0 trains all epochs.",
)  # fmt: skip
@_tuning(
    "--augment",
    type=click.Choice(AUGMENTATIONS),
    section="Fine-tuning",
    metavar="NAME",
    help=f"Augmentation of the training images: {', '.join(AUGMENTATIONS)}.",
)
@_tuning(
    "--crop-scale",
    type=SHARE,
    needs=_AUGMENT,
    metavar="SHARE",
    help="Smallest share of the area that a random crop covers.",
)
@_tuning("--flip/--no-flip", section="Fine-tuning", needs=_AUGMENT, help="Mirror half of the images.")
@_tuning(
    "--mixup", type=click.FloatRange(min=0), metavar="ALPHA",
    help="Mix pairs of images in proportions drawn from Beta(ALPHA, ALPHA); 0 mixes none.",
)  # fmt: skip
@_tuning(
    "--label-smoothing",
    type=SHARE_BELOW_1,
    metavar="SHARE",
    help="Share of each label that is spread over all classes.",
)
@_tuning(
    "--class-weight", type=click.Choice(("balanced",)),
    help="Weight all classes equally in the loss, however many images each has.",
)  # fmt: skip
@_tuning(
    "--ema", type=SHARE_BELOW_1, metavar="DECAY",
    help="Decay per step of an exponential moving average of the weights; 0 averages nothing.",
)  # fmt: skip
@_tuning(
    "--cached-crops", type=click.IntRange(min=0), needs=_FROZEN, metavar="N",
    help="Number of random crops of each image for which the output of frozen blocks is cached; 0 caches nothing.",
)  # fmt: skip
@_tuning(
    "--teacher-weight", type=SHARE, needs=_TAUGHT, metavar="SHARE",
    help="Share of the loss that comes from the teacher's probabilities; the rest comes from the labels.",
)  # fmt: skip
@_tuning(
    "--temperature", type=POSITIVE, needs=_TAUGHT, metavar="T",
    help="Temperature that softens the probabilities of teacher and network before they are compared.",
)  # fmt: skip
@_tuning("--compile", is_flag=True, help="Train by torch.compile, which takes about a minute before the first step.")
@_tuning(
    "--interpolate/--no-interpolate",
    help="Try weights between those of the head and the fine-tuned ones (WiSE-FT).",
)  # fmt: skip
@_tuning(
    "--significance", type=SHARE, metavar="P",
    help="Significance level: promote the network only if chance alone would do as well with a probability of at most P.",
)  # fmt: skip
@_tuning(
    "--repeats", type=click.IntRange(min=0), metavar="K",
    help="Largest number, at least 2, of other splits that are tried where a gain may be chance; together they evaluate every "
    "image. 0 tries none.",
)  # fmt: skip
@_tuning(
    "--search", type=click.IntRange(min=0), section="Fine-tuning", metavar="N", show_default="none",
    help="Try N settings, at least 2, on folds of the training images first.",
)  # fmt: skip
@_tuning(
    "--budget", type=DURATION, needs=with_option("search", "--search"), metavar="TIME", show_default="no limit",
    help="Longest time of the search, such as 5min. It ends within a trial; caching the output of frozen blocks, most of which "
    "training uses too, is not counted.",
)  # fmt: skip
@_tuning(
    "--from-random", type=click.IntRange(min=0), metavar="N",
    help="Train from random weights too, for as many epochs and for N times as many, and draw all trainings.",
)  # fmt: skip
@_tuning("--seed", metavar="N", help="Seed of the order of images, crops, mixing and dropout.")
@option(
    "--features",
    section="Advanced",
    needs=ALWAYS,
    metavar="FILE",
    help="Feature file, where it is not the one that the head names.",
)
@HEAD_TABLE
@SOURCE_BACKBONE
@DEVICE
@WORKERS
@option(
    "--tensorboard", is_flag=True, section="Advanced", needs=_FINETUNE,
    help="Write the epochs for TensorBoard too, into <model>.tensorboard, as --track tensorboard does.",
)  # fmt: skip
@TRACKING
@needing(
    Needs("with both HEAD and --out", lambda options: not (options["head"] and options["out"])), MODELS_FOLDER,
)  # fmt: skip
@option(
    "-o", "--out", section="Output", needs=ALWAYS, metavar="FILE",
    help="Model file to write, instead of one named in the models folder.",
)  # fmt: skip
def promote(reporter: Reporter, head: str | None, models: str, **options: Any) -> Promotion:
    """Move HEAD onto its backbone as one network, prove that both classify alike, and fine-tune the network on request.

    HEAD is a head file; by default the newest in the models folder. The epoch is chosen on the validation set: the split val,
    or training images that are held back. The verdict is reached on images on which nothing was chosen. A fine-tuned network
    that does not provably beat the head on them is discarded: the model is then the head on its backbone. The same command
    resumes an interrupted run from its last epoch.
    """
    from featx.heads.head_file import HEAD
    from featx.io.model_file import newest

    stage_of_import(reporter)
    from featx.promotion.promotion import promote as run

    others = {name: value for name, value in options.items() if name not in _FIELDS}
    return run(
        newest(Path(models), HEAD, reporter=reporter) if head is None else path_of(head, "HEAD"),
        settings=_settings(options),
        models=models,
        reporter=reporter,
        **others,
    )

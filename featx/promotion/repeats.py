"""Repeats of fine-tuning on other splits, where the gain on the test split may be luck."""

from __future__ import annotations

import math

from featx.errors import FoldError, HeadError, PromotionError
from featx.metrics.paired import PromotionCriterion
from featx.promotion.finetune_run import FineTuner, FineTuningRun
from featx.promotion.splits import repeated_splits
from featx.text import counted


def repeat_runs(tuner: FineTuner, first: FineTuningRun) -> tuple[tuple[FineTuningRun, ...], list[str]]:
    """Fine-tune on other splits as long as they can prove a gain that the first run left open.

    In all repeats together, each labelled image is tested once.

    Args:
        tuner: Made the first run.
        first: The run on the data set's own split.

    Returns:
        The runs, and sentences for the user; both empty where the first run decides.
    """
    settings, gain, n_images = tuner.settings, first.paired, len(tuner.assembly.data.labelled_rows)
    criterion = PromotionCriterion(settings.significance, settings.repeats)
    if gain.gained <= 0 or criterion.proved(gain):
        return (), []
    luck = f"a gain of {gain.gained} of {counted(gain.n, 'test image')} may be luck"
    if not settings.repeats:
        once = tuner.teacher.why_once(tuner.assembly) if tuner.teacher else ""
        remedy = "--repeats 5 fine-tunes on up to five other splits, which together test every image"
        return (), [f"{luck}; fine-tuning was not repeated on other splits: {once}" if once else f"{luck}; {remedy}"]
    if not criterion.undecided(gain, (), n_images):
        return (), [
            f"{luck}; fine-tuning was not repeated: on all {n_images} images so small a gain would prove nothing"
        ]
    minutes = math.ceil(first.seconds / 60)
    tuner.reporter.note(
        f"{luck}: fine-tuning on up to {counted(settings.repeats, 'other split')}, about {minutes} min each; --repeats 0 "
        "skips this"
    )
    runs: list[FineTuningRun] = []
    try:
        for split in repeated_splits(tuner.assembly, settings.repeats, settings.seed):
            tuner.reporter.note(
                f"split {split.repeat}: {len(split.train)} training, {len(split.validation)} validation and "
                f"{counted(len(split.test), 'test image')}"
            )
            run, _ = tuner.run(split)
            runs.append(run)
            if not criterion.undecided(gain, [each.paired for each in runs], n_images):
                break
    except (FoldError, HeadError, PromotionError) as error:  # the verdict is reached without them
        which = "further splits" if runs else "other splits"
        return tuple(runs), [f"{luck}; fine-tuning on {which} failed: {error}"]
    return tuple(runs), []

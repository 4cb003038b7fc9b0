"""Options of ``fit_head`` that exclude or need one another. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence

from featx.constants import ZERO_SHOT
from featx.errors import SettingsError

AUTO, BEST = "auto", "best"
"""The model that stands for every kind of head that suits the data; the layer that stands for the best one."""

CV_FOLDS, CV_REPEATS = 5, 4
"""Of the cross-validation that is added then."""


def require_compatible(
    *,
    model: object,
    C: float | None,
    k: int | None,
    kernel: str,
    cv: int | str | None,
    repeat: int,
    shots: Sequence[int],
) -> None:
    """Refuse options of ``fit_head`` that do not go together.

    Raises:
        SettingsError: ``repeat`` without anything to repeat, or hyper-parameters of one kind of head for all kinds.

    Examples:
        >>> require_compatible(model="auto", C=1.0, k=None, kernel="linear", cv=None, repeat=1, shots=())
        Traceback (most recent call last):
        featx.errors.SettingsError: auto chooses C, k and kernel itself; name a kind of head to set them
    """
    if repeat > 1 and not (cv or shots):
        raise SettingsError("repeat is the number of times that cv or shots are repeated; expected one of them with it")
    if repeat > 1 and isinstance(cv, str) and not shots:
        raise SettingsError(f"repeat has no effect on the folds of a column ({cv}), which are the same each time")
    if model == AUTO and (C is not None or k is not None or kernel != "linear"):
        raise SettingsError("auto chooses C, k and kernel itself; name a kind of head to set them")


def require_texts(*, model: object, prompts: Sequence[str], class_names: object, anchor: str | None) -> None:
    """Refuse texts of classes without a head that has them.

    Raises:
        SettingsError: prompts or class names without such a head, or an anchor of another kind than logreg.

    Examples:
        >>> require_texts(model="ridge", prompts=(), class_names=None, anchor="zeroshot")
        Traceback (most recent call last):
        featx.errors.SettingsError: anchor (--anchor) is for logreg, and the model is ridge; expected one of them
    """
    if anchor not in (None, ZERO_SHOT):
        raise SettingsError(f"anchor is {anchor!r}; expected {ZERO_SHOT}")
    if anchor and model not in (None, "logreg"):
        raise SettingsError(f"anchor (--anchor) is for logreg, and the model is {model}; expected one of them")
    if (prompts or class_names) and not (anchor or model == ZERO_SHOT):
        raise SettingsError(
            f"prompts and class names describe the classes of a zero-shot head; expected --model {ZERO_SHOT} or "
            f"--anchor {ZERO_SHOT} with them"
        )

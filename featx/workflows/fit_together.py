"""``fit_head`` by the processes that torchrun started: the first one fits, judges and writes, all sum over their rows."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from featx.arguments import path_of
from featx.constants import CACHE
from featx.errors import SettingsError
from featx.features.feature_set import FeatureSet
from featx.features.joint_sets import is_joint
from featx.features.remote_folder import local_file, newest_file
from featx.heads.head import Head
from featx.reporter import SILENT
from featx.system import started
from featx.workflows.fit_options import AUTO, BEST

P = ParamSpec("P")
R = TypeVar("R")

TOGETHER = ("logreg", "ridge", "linear")
"""The kinds of head that several processes can fit."""


def fits_together(function: Callable[P, R]) -> Callable[P, R]:
    """Let ``fit_head`` run in the first process, and the others answer it, where torchrun started several.

    All processes return the result of the first one. An error in any of them is raised in all.
    """

    @functools.wraps(function)
    def together(*args: P.args, **kwargs: P.kwargs) -> R:
        if started()[1] == 1:
            return function(*args, **kwargs)
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        require_together(given.get("model"), given)
        from featx.heads.gloo import Gloo  # imports torch
        from featx.heads.ranks import answer_all, fitting_together

        messages = Gloo()
        try:
            if messages.rank:
                answer_all(messages, _loader(given.get("features"), given.get("cache", CACHE)))
                other: R = messages.broadcast(None)
                return other
            with fitting_together(messages, from_file=not isinstance(given.get("features"), FeatureSet)):
                fit = function(*args, **kwargs)
            messages.broadcast(fit)
            return fit
        finally:
            messages.close()

    return together


def require_together(model: Any, options: Mapping[str, Any]) -> None:
    """Refuse what several processes cannot fit.

    Raises:
        SettingsError: it is another kind of head, or an option that fits others.

    Examples:
        >>> require_together("knn", {})
        Traceback (most recent call last):
        featx.errors.SettingsError: torchrun is for --model logreg, ridge and linear, and the model is knn; use one process
    """
    head = model if isinstance(model, Head) else None
    kind = model or "logreg" if head is None else head.kind
    if kind not in TOGETHER:
        *most, last = TOGETHER
        shown = "a comparison of all kinds (auto)" if kind == AUTO else kind
        raise SettingsError(
            f"torchrun is for --model {', '.join(most)} and {last}, and the model is {shown}; use one process"
        )
    layer = options.get("layer", ())
    unfit = {
        "--anchor": bool(options.get("anchor")) or (head is not None and head.texts is not None),
        f"--layer {BEST}": BEST in ((layer,) if isinstance(layer, str) else tuple(layer)),
        "several feature files": is_several(options),
        "--device": (options.get("device", "cpu") if head is None else head.device) != "cpu",
    }
    named = [option for option, given in unfit.items() if given]
    if named:
        raise SettingsError(
            f"{' and '.join(named)} cannot be combined with torchrun, whose processes fit heads on the CPU; leave it out, or "
            "fit in one process"
        )


def is_several(options: Mapping[str, Any]) -> bool:
    """Whether the features of several backbones are asked for."""
    features = options.get("features")
    if isinstance(features, FeatureSet):
        return is_joint(features.backbone)
    listed = isinstance(features, Sequence) and not isinstance(features, str)
    return bool(options.get("with_backbones")) or (listed and len(list(features or ())) > 1)


def _loader(source: Any, cache: str | os.PathLike[str]) -> Callable[[str], FeatureSet]:
    """The function by which a process loads a layer of the features that it was told to read."""
    if isinstance(source, FeatureSet):
        return lambda layer: source  # noqa: ARG005 - a set is of one layer

    def load(layer: str) -> FeatureSet:
        path = newest_file(cache, SILENT) if source is None else local_file(path_of(source, "features"))
        return FeatureSet.load(path, layer)

    return load

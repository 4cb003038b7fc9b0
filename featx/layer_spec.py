"""How images are seen: views, sets of views, and what the name of a layer stands for. Standard library only.

A feature file keeps a layer as it is seen in one view, ``penultimate`` plainly and ``penultimate@mirrored`` besides. Whoever
asks for features names one layer or several with commas between them, and behind an ``@`` how they are seen:
``layer3,penultimate@flip`` are the two side by side, in the two views of the set ``flip``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from featx.errors import BackboneError


@dataclass(frozen=True)
class View:
    """Where the crop is taken from a resized image, and whether it is mirrored.

    Attributes:
        name: as a feature file has it, behind the layer's.
        vertical: -1 at the top, 0 in the middle, 1 at the bottom.
        horizontal: -1 on the left, 0 in the middle, 1 on the right.
        mirrored: left and right change places.
    """

    name: str = ""
    vertical: int = 0
    horizontal: int = 0
    mirrored: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What the view adds to the identity of features."""
        return {"view": self.name} if self.name else {}


@dataclass(frozen=True)
class RandomView:
    """One of several random crops of every image, drawn from the image's content, so that it is always the same.

    Attributes:
        number: which of them.
        seed: of all of them.
        scale: as ``decode.read_augmented``.
        flip: as ``decode.read_augmented``.
    """

    number: int
    seed: int
    scale: float
    flip: bool

    @property
    def name(self) -> str:
        """None: its file holds no other view."""
        return ""

    @property
    def facts(self) -> dict[str, Any]:
        """As of ``View``."""
        return {"view": asdict(self)}


def _and_mirrored(view: View) -> tuple[View, View]:
    name = f"{view.name}-mirrored" if view.name else "mirrored"
    return view, View(name, view.vertical, view.horizontal, mirrored=True)


PLAIN, MIRRORED = _and_mirrored(View())
_CORNERS = (
    View("top-left", -1, -1),
    View("top-right", -1, 1),
    View("bottom-left", 1, -1),
    View("bottom-right", 1, 1),
)

VIEWS: dict[str, tuple[View, ...]] = {
    "plain": (PLAIN,),
    "flip": (PLAIN, MIRRORED),
    "10crop": tuple(view for one in (PLAIN, *_CORNERS) for view in _and_mirrored(one)),
}
"""The sets that features are extracted in: the centre; it and its mirror image; it and the corners, each with its mirror image
(Krizhevsky et al., 2012). Each holds those before it."""

_BY_NAME = {**VIEWS, **{view.name: (view,) for view in VIEWS["10crop"]}}


def kept_as(layer: str, view: View | RandomView) -> str:
    """The name under which a file keeps one layer as it is seen in one view."""
    return f"{layer}@{view.name}" if view.name else layer


def asked_as(layer: str, views: str) -> str:
    """The name of one layer or several, seen in a set of views."""
    return layer if views == "plain" else f"{layer}@{views}"


def side_by_side(layer: str) -> list[str]:
    """The layers that a name stands for, however they are seen: several are one after the other in each row."""
    return layer.partition("@")[0].split(",")


def views_of(layer: str) -> tuple[View, ...]:
    """How the layers of a name are seen.

    Raises:
        BackboneError: in a way that there is not.
    """
    name = layer.partition("@")[2]
    if name not in _BY_NAME:
        raise BackboneError(f"{layer!r}: images are not seen in {name!r}; expected {', '.join(VIEWS)}")
    return _BY_NAME[name]


def is_name(value: object) -> bool:
    """Whether something is the name of layers that are seen in views that there are."""
    return isinstance(value, str) and value.partition("@")[2] in _BY_NAME


def kept_names(layer: str) -> list[list[str]]:
    """What a file keeps of the layers of a name: for each view, their names, side by side.

    Raises:
        BackboneError: as ``views_of``.
    """
    return [[kept_as(name, view) for name in side_by_side(layer)] for view in views_of(layer)]


def option_for(kept: str) -> str:
    """The option of ``featx extract`` that has a file keep a layer under a name."""
    layer, _, view = kept.partition("@")
    name = next((name for name, views in VIEWS.items() if view and view in [known.name for known in views]), "")
    return f"--views {name}" if name else f"--layer {layer}"


def seen_plainly(kept: Iterable[str]) -> list[str]:
    """Of the names that a file keeps layers under, those that are seen plainly."""
    return [name for name in kept if "@" not in name]


def set_of(views: Sequence[View | RandomView]) -> str:
    """The name of the set that these views are; "" where they are none."""
    return next((name for name, known in VIEWS.items() if known == tuple(views)), "")


def largest_set(kept: Collection[str], layers: Sequence[str]) -> str:
    """The largest set of views in which a file keeps all of some layers."""
    return next(
        name
        for name, views in reversed(VIEWS.items())
        if name == "plain" or all(kept_as(layer, view) in kept for layer in layers for view in views)
    )


PENULTIMATE = "penultimate"
"""The layer whose output enters the last classifier layer."""


def by_depth(layer: str) -> tuple[bool, list[tuple[int, str]]]:
    """A key to sort names of layers by: numbers within them count as numbers, and the penultimate comes last."""
    return layer == PENULTIMATE, [
        (int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", layer)
    ]

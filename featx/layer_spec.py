"""Which layers of a backbone, pooled how, in which views: one name for all of it, parsed here. Standard library only.

A feature file stores a layer as it looks in one view: ``penultimate`` plainly, and ``penultimate@mirrored`` besides. Callers
name one layer, or several with commas between them, and after an ``@`` the views: ``layer3,penultimate@flip`` stands for the
two layers side by side, in both views of the set ``flip``. Fitting to views and averaging over them is what others call
test-time augmentation (TTA).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from featx.constants import POOLINGS
from featx.errors import BackboneError

PENULTIMATE = "penultimate"
"""The layer whose output enters the last classifier layer."""


@dataclass(frozen=True)
class View:
    """Where the crop is taken from a resized image, and whether it is mirrored.

    Attributes:
        name: the part of a stored name after the ``@``; "" for the plain view.
        vertical: -1 at the top, 0 in the middle, 1 at the bottom.
        horizontal: -1 on the left, 0 in the middle, 1 on the right.
        mirrored: whether left and right are swapped.
    """

    name: str = ""
    vertical: int = 0
    horizontal: int = 0
    mirrored: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """The view's part of an identity; empty for the plain view."""
        return {"view": self.name} if self.name else {}


@dataclass(frozen=True)
class RandomView:
    """One of several random crops of every image, drawn from the image's bytes, so that it is always the same.

    Attributes:
        number: counts the crops of an image, from 0.
        seed: the seed of all crops.
        scale: as in ``augment.read_augmented``.
        flip: as in ``augment.read_augmented``.
    """

    number: int
    seed: int
    scale: float
    flip: bool

    @property
    def name(self) -> str:
        """Empty: a file of random views holds no other view."""
        return ""

    @property
    def facts(self) -> dict[str, Any]:
        """The view's part of an identity."""
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
"""The sets of views: the centre crop; that and its mirror image; the centre and the four corners, each with its mirror image
(Krizhevsky et al., 2012). Each set contains the one before."""

_BY_NAME = {"": (PLAIN,), **VIEWS, **{view.name: (view,) for view in VIEWS["10crop"]}}


@dataclass(frozen=True)
class Cells:
    """A coarse grid over a map or over the patches of an image, and the mean of each of its cells as one token.

    Attributes:
        side: the grid is so many cells high and wide; 0 for ``count`` cells in the shape of the images.
        count: the number of cells.
        with_class: whether the class token comes after them.
    """

    side: int
    count: int
    with_class: bool

    @classmethod
    def parse(cls, pooling: str) -> Cells | None:
        """Parse ``gridG`` or ``tokens:N``, each perhaps with ``+cls``; None if it is neither.

        Examples:
            >>> Cells.parse("grid2"), Cells.parse("tokens:16+cls"), Cells.parse("avg")
            (Cells(side=2, count=4, with_class=False), Cells(side=0, count=16, with_class=True), None)
        """
        found = _CELLS.fullmatch(pooling)
        if found is None:
            return None
        side, count, end = found.groups()
        return cls(int(side or 0), int(side) ** 2 if side else int(count), bool(end))


_CELLS = re.compile(r"(?:grid([2-9]|[1-9]\d)|tokens:([2-9]|[1-9]\d{1,3}))(\+cls)?")

POOLINGS_EXPECTED = f"{', '.join(POOLINGS)}, gridG such as grid2, or tokens:N such as tokens:16 (both also with +cls)"
"""The poolings, for messages and for ``--help``."""


def require_pooling(pooling: str, subject: str = "") -> str:
    """Check the name of a pooling, and return it.

    Args:
        pooling: the name.
        subject: how the message begins.

    Raises:
        BackboneError: there is no such pooling.
    """
    if pooling not in POOLINGS and Cells.parse(pooling) is None:
        raise BackboneError(f"{subject}there is no pooling {pooling!r}; expected {POOLINGS_EXPECTED}")
    return pooling


@dataclass(frozen=True)
class LayerNode:
    """One layer of a network, and how its output becomes one vector per image.

    Attributes:
        node: the name of a module, or of a node of torchvision's feature extraction; or ``penultimate``, which with a pooling
            stands for the last map or tokens before the penultimate.
        pooling: one of ``POOLINGS``, or cells. ``avg``: the mean over all places of a map, or all tokens. ``max``: their
            maximum. ``gem``: the generalised mean with p = 3 (Radenovic et al., 2018). ``cls``: the class token. ``avg+cls``:
            the mean over the patches, then the class token. ``flatten``: all places, one after the other. ``grid2``: the means
            of 2 x 2 cells (adaptive average pooling), row by row, each with all its channels; ``grid3``, ... likewise.
            ``tokens:16``: the means of 16 cells in the shape of the images, 4 x 4 for squares. ``grid2+cls`` and
            ``tokens:16+cls``: the class token after these.

    Examples:
        >>> LayerNode.parse("layer4:grid2").tokens, LayerNode.parse("blocks.11:tokens:16+cls").tokens
        (4, 17)
    """

    node: str
    pooling: str = POOLINGS[0]

    @property
    def cells(self) -> Cells | None:
        """The grid of a pooling to cells; None for the others."""
        return Cells.parse(self.pooling)

    @property
    def tokens(self) -> int:
        """The number of tokens, all of one width, that the vector consists of, one after the other; 1 for a plain vector."""
        cells = self.cells
        return 2 if self.pooling == "avg+cls" else 1 if cells is None else cells.count + cells.with_class

    @property
    def is_vector(self) -> bool:
        """Whether it is the penultimate embedding itself."""
        return self == LayerNode(PENULTIMATE)

    @classmethod
    def parse(cls, name: str, default: str = POOLINGS[0]) -> LayerNode:
        """Parse ``NODE`` or ``NODE:POOLING``.

        Args:
            name: the name.
            default: the pooling of a name that has none.

        Raises:
            BackboneError: there is no such pooling, the name is that of a grid alone, or the layer is one vector already.
        """
        if Cells.parse(name):
            raise BackboneError(
                f"--layer {name}: {name} is a pooling, and is written after a layer, as in {PENULTIMATE}:{name}"
            )
        node, _, pooling = name.partition(":")
        if pooling:
            require_pooling(pooling, f"--layer {name}: ")
        if pooling == POOLINGS[0] and node == PENULTIMATE:
            raise BackboneError(
                f"--layer {name}: {PENULTIMATE} is one vector; for the mean of the map before it, name that layer, such as "
                "layer4"
            )
        return cls(node, pooling or (default if node != PENULTIMATE else POOLINGS[0]))

    def __str__(self) -> str:
        return self.node if self.pooling == POOLINGS[0] else f"{self.node}:{self.pooling}"


@dataclass(frozen=True)
class LayerSpec:
    """Layers of a backbone side by side, in one view or several.

    Attributes:
        layers: their names, each as ``LayerNode.parse`` takes it.
        views: the views of each image.

    Examples:
        >>> spec = LayerSpec.parse("layer3:gem,penultimate@flip")
        >>> spec.layers, spec.views_name
        (('layer3:gem', 'penultimate'), 'flip')
        >>> spec.stored
        (('layer3:gem', 'penultimate'), ('layer3:gem@mirrored', 'penultimate@mirrored'))
        >>> str(spec)
        'layer3:gem,penultimate@flip'
    """

    layers: tuple[str, ...]
    views: tuple[View, ...] = (PLAIN,)

    @classmethod
    def parse(cls, name: str, views: str | None = None) -> LayerSpec:
        """Parse ``LAYER[,LAYER...][@VIEWS]``.

        Args:
            name: layers, and views if wanted.
            views: the views of a name that has none.

        Raises:
            BackboneError: there are no such views.
        """
        layers, at, named = name.partition("@")
        named = named if at else views or ""
        if named not in _BY_NAME:
            full = f"{layers}@{named}"
            raise BackboneError(f"{full!r}: there are no views {named!r}; expected {', '.join(VIEWS)}")
        return cls(tuple(layers.split(",")), _BY_NAME[named])

    @staticmethod
    def is_valid(name: object) -> bool:
        """Whether ``parse`` takes a value."""
        return isinstance(name, str) and name.partition("@")[2] in _BY_NAME

    @property
    def nodes(self) -> tuple[LayerNode, ...]:
        """The layers, parsed."""
        return tuple(map(LayerNode.parse, self.layers))

    @property
    def tokens(self) -> int:
        """The number of tokens of each image and view: 1 for plain vectors, and where several layers are side by side.

        Examples:
            >>> LayerSpec.parse("penultimate:grid2@flip").tokens, LayerSpec.parse("layer3:grid2,penultimate").tokens
            (4, 1)
        """
        return self.nodes[0].tokens if len(self.layers) == 1 else 1

    @property
    def layer(self) -> str:
        """The layers without the views, with commas between them."""
        return ",".join(self.layers)

    @property
    def views_name(self) -> str:
        """The name of the set of views; "" where they are none of ``VIEWS``."""
        return views_name(self.views)

    @property
    def stored(self) -> tuple[tuple[str, ...], ...]:
        """For each view, the names under which a feature file stores the layers."""
        return tuple(tuple(stored_name(layer, view) for layer in self.layers) for view in self.views)

    def __str__(self) -> str:
        name = self.views_name or self.views[0].name
        return self.layer if name == "plain" else f"{self.layer}@{name}"


def stored_name(layer: str, view: View | RandomView) -> str:
    """The name under which a feature file stores one layer in one view."""
    return f"{layer}@{view.name}" if view.name else layer


def views_with(stored: str) -> str:
    """The name of the smallest set of views in which a feature file keeps a layer under a name.

    Examples:
        >>> views_with("penultimate"), views_with("layer3@top-left"), views_with("a@b")
        ('plain', '10crop', 'plain')
    """
    view = stored.partition("@")[2]
    return next((name for name, views in VIEWS.items() if view in [known.name for known in views]), "plain")


def plain_layers(stored: Iterable[str]) -> list[str]:
    """The layers that a feature file stores in the plain view."""
    return [name for name in stored if "@" not in name]


def views_name(views: Sequence[View | RandomView]) -> str:
    """The name of a set of views; "" where they are none of ``VIEWS``."""
    return next((name for name, known in VIEWS.items() if known == tuple(views)), "")


def largest_views(stored: Collection[str], layers: Sequence[str]) -> str:
    """The name of the largest set of views in which a feature file stores all of these layers."""
    return next(
        name
        for name, views in reversed(VIEWS.items())
        if name == "plain" or all(stored_name(layer, view) in stored for layer in layers for view in views)
    )


def by_depth(layer: str) -> tuple[bool, list[tuple[int, str]]]:
    """A sort key for names of layers: numbers within them count as numbers, and the penultimate comes last."""
    return layer == PENULTIMATE, [
        (int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", layer)
    ]

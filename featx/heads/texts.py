"""Classes described by text: the vectors of a model's text tower that a zero-shot head compares images with. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from featx.errors import HeadError
from featx.io.schema import NAMES, NUMBER, POSITIVE, TEXT, Rule


@dataclass(frozen=True, eq=False)
class ClassTexts:
    """The classes of a data set as vectors of text.

    Attributes:
        names: C class names, as the data set has them.
        words: for each class, what stood for ``{}`` in the templates, several separated by "; ".
        templates: the sentences that the words were put into.
        vectors: (C, D) float64 of length 1: the mean of the unit vectors of a class's sentences, normalised again, as CLIP's
            authors ensemble prompts.
        scale: what the model multiplies the cosine of image and text by.
        bias: what it adds.
        sigmoid: whether the model was trained by a sigmoid for each pair, as SigLIP, and not by a softmax over texts, as CLIP.

    Raises:
        HeadError: there are fewer than two classes, or one of them twice; or the vectors are not (C, D).

    Examples:
        >>> texts = ClassTexts(("ant", "bee"), ("ant", "bee"), ("a photo of a {}",), np.eye(2), 100.0)
        >>> texts.vectors.shape
        (2, 2)
    """

    names: tuple[str, ...]
    words: tuple[str, ...]
    templates: tuple[str, ...]
    vectors: np.ndarray
    scale: float = 1.0
    bias: float = 0.0
    sigmoid: bool = False

    RULES: ClassVar[Mapping[str, Any]] = {
        "words": [TEXT],
        "templates": [TEXT],
        "scale": POSITIVE,
        "bias": NUMBER,
        "sigmoid": Rule("true or false", lambda value: isinstance(value, bool)),
        "names": NAMES,
    }
    """What ``facts`` holds, for reading it again."""

    def __post_init__(self) -> None:
        count = len(self.names)
        if count < 2 or len(set(self.names)) < count:
            raise HeadError(f"the classes are {', '.join(self.names)}; expected at least two different ones")
        if self.vectors.ndim != 2 or len(self.vectors) != count or len(self.words) != count:
            raise HeadError(f"the texts of {count} classes are of shape {self.vectors.shape}; expected ({count}, D)")

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the vectors, as JSON stores it."""
        return {
            "names": list(self.names),
            "words": list(self.words),
            "templates": list(self.templates),
            "scale": self.scale,
            "bias": self.bias,
            "sigmoid": self.sigmoid,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any], vectors: np.ndarray) -> ClassTexts:
        """The inverse of ``facts``."""
        lists = {name: tuple(facts[name]) for name in ("names", "words", "templates")}
        return cls(**lists, vectors=vectors, scale=facts["scale"], bias=facts["bias"], sigmoid=facts["sigmoid"])

    def of_classes(self, names: Sequence[str]) -> ClassTexts:
        """The same texts for some of the classes, in another order.

        Raises:
            HeadError: a class has no text.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise HeadError(f"there is no text for {', '.join(map(repr, missing[:5]))}; expected one for each class")
        at = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), words=tuple(self.words[i] for i in at), vectors=self.vectors[at])

    @property
    def weight(self) -> np.ndarray:
        """(C, D) float64: the vectors times ``scale``, which give the model's logits of an embedding of length 1."""
        return self.vectors * self.scale


def require_width(texts: ClassTexts, width: int, layer: str) -> None:
    """Raise HeadError unless texts and features of a layer have the same width."""
    if texts.vectors.shape[1] != width:
        raise HeadError(
            f"the texts have {texts.vectors.shape[1]} numbers and the features of {layer} {width}; only the penultimate layer "
            "of a model of images and text can be compared with its texts"
        )

"""The text tower of a model of images and text: texts to vectors that can be compared with those of images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featx.errors import BackboneError
from featx.text import printable

BATCH = 256
"""Texts that pass through the tower at once."""


@dataclass(frozen=True, eq=False)
class TextTower:
    """Texts to vectors, and how the model turns the cosine of an image and a text into a logit: ``scale * cosine + bias``.

    Attributes:
        encode: turns a list of texts into (B, D) float32 on the CPU, as the model returns them.
        scale: the factor of the cosine, which training found: the exponential of the model's ``logit_scale``.
        bias: what is added, 0 for a model that has no ``logit_bias``.
        sigmoid: whether the model was trained by a sigmoid for each pair, as SigLIP, and not by a softmax over texts, as CLIP.
    """

    encode: Callable[[list[str]], Tensor]
    scale: float
    bias: float
    sigmoid: bool

    def unit_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32 of Euclidean length 1."""
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                vectors = self.encode(list(texts[start : start + BATCH])).float()
                rows.append(torch.nn.functional.normalize(vectors, dim=1).cpu().numpy())
        unit: np.ndarray = np.concatenate(rows)
        return unit


class WithText:
    """What a backbone can do that may have a text tower.

    Args:
        name: the backbone's name.
        load: loads the text tower; None if there is none.
    """

    def __init__(self, name: str, load: Callable[[], TextTower] | None) -> None:
        self.name = name
        self._load_text = functools.cache(load) if load else None

    @property
    def has_text(self) -> bool:
        """Whether the model has a text tower, whose vectors can be compared with the penultimate embeddings of images."""
        return self._load_text is not None

    def text_tower(self) -> TextTower:
        """The text tower of a model of images and text. It is loaded on the first call.

        Raises:
            BackboneError: the model has none, or its tokenizer is missing.
        """
        if self._load_text is None:
            raise BackboneError(
                f"{self.name} has no text tower; expected a model of images and text, such as open_clip/ViT-B-32/openai or "
                "hf/openai/clip-vit-base-patch32"
            )
        return self._load_text()

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts by the model's text tower, on the CPU, to compare them with images.

        Args:
            texts: N texts; longer ones than the model takes are cut off.

        Returns:
            (N, D) float32 of Euclidean length 1, where D is the width of the penultimate layer. The embeddings of images are
            not normalised: divide them by their length for the cosine.

        Raises:
            BackboneError: a text is blank or no Unicode, the model has no text tower, or its tokenizer is missing.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not len(texts):
            raise BackboneError(f"the texts are {texts!r}; expected a list of at least one text")
        for text in texts:
            if not text.strip():
                raise BackboneError(f"the text {text!r} is blank; expected words, such as 'a dog on grass'")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise BackboneError(
                    f"the text {printable(repr(text))} has bytes that are not UTF-8, which no model reads"
                )
        return self.text_tower().unit_vectors(texts)

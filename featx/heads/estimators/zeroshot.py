"""The zero-shot head: the cosine of an image and the text of each class. Nothing is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from featx.errors import HeadError
from featx.heads.predictors import CosinePredictor
from featx.heads.texts import ClassTexts
from featx.heads.training_data import TrainingData


class ZeroShotEstimator:
    """Gives each class the vector of its text (CLIP: Radford et al., 2021; SigLIP: Zhai et al., 2023).

    Args:
        texts: of the classes.

    Attributes:
        candidates: (0.0,), because there is no hyper-parameter.

    Raises:
        HeadError: there are no texts.
    """

    candidates = (0.0,)

    def __init__(self, texts: ClassTexts | None) -> None:
        if texts is None:
            raise HeadError(
                "a zeroshot head needs the texts of its classes: featx.fit_head(features, 'zeroshot', prompts=[...]) makes them"
            )
        self.texts = texts

    def predictor(self) -> CosinePredictor:
        """The predictor of all classes."""
        return CosinePredictor(self.texts.weight, np.full(len(self.texts.names), self.texts.bias))

    def fit(self, training: TrainingData, candidate: float) -> CosinePredictor:  # noqa: ARG002 - nothing is learned
        """Return the predictor, whatever the rows are."""
        return self.predictor()

    def cross_val_scores(
        self, training: TrainingData, candidates: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Score the rows that folds hold out; no fold learns anything.

        Yields:
            Each candidate, and the (N, C) float64 scores; NaN for rows that no fold holds out.
        """
        predictor = self.predictor()
        scores = np.full((len(training), training.count), np.nan)
        for rows, block in training.rows.blocks(np.float64):
            held_out = training.fold_of[rows] >= 0
            scores[rows][held_out] = predictor.decision_function(block[held_out])
        for candidate in candidates:
            yield candidate, scores

"""The comparison of an exported model with featx."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from featx.deployment.proof import Reference, prove


def test_the_proof_of_a_model_that_rejects_images_is_json() -> None:
    images: Any = (SimpleNamespace(pixels=np.zeros((4, 4, 3), dtype=np.uint8)),)
    model: Any = SimpleNamespace(decide=lambda _: None, classes=("ant", "bee"))

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {"probabilities": np.full((len(pixels), 2), 0.5), "label": np.full(len(pixels), -1)}

    proof = prove(run, model, Reference(images, np.array([[0.5, 0.5]]), "test", 0))
    assert json.loads(json.dumps(proof.as_dict()))["same_labels"] == 1

"""Rows that lie on a GPU, for the same solver: the products are taken there, what is made of the scores here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from featx.heads.solver.matrices import Span, Work, side_by_side


class OnDevice:
    """A matrix on a device of torch, as a ``matrices.Matrix``.

    Args:
        Z: (N, D) float32 or float64; copied.
        device: of torch.
    """

    _SCORES = 1 << 24
    """Of a block of rows whose products are taken at once."""
    _ROWS = 2048
    """Of a part of a block that one core deals with."""

    def __init__(self, Z: np.ndarray, device: str) -> None:
        self.Z, self.dtype = torch.from_numpy(Z).to(device), Z.dtype

    def __len__(self) -> int:
        return len(self.Z)

    def sweep(self, spans: Sequence[Span], work: Work, *, squared: bool = False) -> list[np.ndarray]:
        """As ``Matrix.sweep``."""
        return [self._gathered(rows, V, work, squared) for rows, V in spans]

    def _gathered(self, rows: slice, V: np.ndarray | None, work: Work, squared: bool) -> np.ndarray:
        weights = None if V is None else torch.from_numpy(np.ascontiguousarray(V)).to(self.Z.device)
        step = max(self._ROWS, self._SCORES // max(1, 0 if V is None else len(V)))
        total: torch.Tensor | None = None
        for at in range(rows.start, rows.stop, step):
            block = slice(at, min(at + step, rows.stop))
            Z = self.Z[block]
            R = _made_of(block, None if weights is None else (weights @ Z.T).cpu().numpy(), work, self._ROWS)
            part = torch.from_numpy(R).to(self.Z.device) @ (Z * Z if squared else Z)
            total = part if total is None else total.add_(part)
        assert total is not None, "no rows"
        out: np.ndarray = total.cpu().numpy()
        return out


def _made_of(block: slice, M: np.ndarray | None, work: Work, step: int) -> np.ndarray:
    """What work makes of a block and its scores, in parts side by side."""
    parts = [slice(at, min(at + step, block.stop)) for at in range(block.start, block.stop, step)]

    def one(rows: slice) -> np.ndarray:
        return work(rows, None if M is None else M[:, rows.start - block.start : rows.stop - block.start])

    return np.concatenate(side_by_side(one, parts), axis=1)

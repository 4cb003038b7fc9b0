"""A matrix of rows on a GPU: torch computes the products there, and numpy processes the scores on the processor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from featx.heads.solver.matrices import BlockFunction, Span, parallel_map


class DeviceMatrix:
    """A matrix on a torch device; a ``featx.heads.solver.matrices.Matrix``.

    Args:
        Z: (N, D) float32 or float64; copied to the device.
        device: of torch, such as "cuda" or "cpu:0".

    Examples:
        >>> matrix = DeviceMatrix(np.array([[1.0, 2.0], [3.0, 4.0]]), "cpu:0")
        >>> matrix.sweep([(slice(0, 2), np.array([[1.0, 1.0]]))], lambda rows, scores: scores)  # Z' (Z v)
        [array([[24., 34.]])]
    """

    _SCORES = 1 << 24
    """Scores of a block of rows, whose products are computed at once."""
    _ROWS = 2048
    """Rows of a part of a block, which one core processes."""

    def __init__(self, Z: np.ndarray, device: str) -> None:
        self.Z, self.dtype = torch.from_numpy(Z).to(device), Z.dtype

    def __len__(self) -> int:
        return len(self.Z)

    def sweep(self, spans: Sequence[Span], process: BlockFunction, *, squared: bool = False) -> list[np.ndarray]:
        """Go over the rows once; see ``Matrix.sweep``."""
        return [self._span_sum(rows, V, process, squared) for rows, V in spans]

    def _span_sum(self, rows: slice, V: np.ndarray | None, process: BlockFunction, squared: bool) -> np.ndarray:
        weights = None if V is None else torch.from_numpy(np.ascontiguousarray(V)).to(self.Z.device)
        step = max(self._ROWS, self._SCORES // max(1, 0 if V is None else len(V)))
        total: torch.Tensor | None = None
        for at in range(rows.start, rows.stop, step):
            block = slice(at, min(at + step, rows.stop))
            Z = self.Z[block]
            scores = None if weights is None else (weights @ Z.T).cpu().numpy()
            R = _process_in_parts(block, scores, process, self._ROWS)
            part = torch.from_numpy(R).to(self.Z.device) @ (Z * Z if squared else Z)
            total = part if total is None else total.add_(part)
        assert total is not None, "no rows"
        out: np.ndarray = total.cpu().numpy()
        return out


def _process_in_parts(block: slice, scores: np.ndarray | None, process: BlockFunction, step: int) -> np.ndarray:
    """Process a block and its (M, n) scores in parallel, ``step`` rows at a time: (m, n)."""
    parts = [slice(at, min(at + step, block.stop)) for at in range(block.start, block.stop, step)]

    def process_part(rows: slice) -> np.ndarray:
        return process(rows, None if scores is None else scores[:, rows.start - block.start : rows.stop - block.start])

    return np.concatenate(parallel_map(process_part, parts), axis=1)

"""The batched solver of linear heads: L-BFGS for many penalties and folds at once, and Newton steps for the final fit.

The public names are loaded on first use (PEP 562), so that only ``DeviceMatrix`` loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "lbfgs": ["minimise"],
        "losses": ["Logistic", "Loss", "Softmax", "SquaredHinge"],
        "matrices": ["DenseMatrix", "Matrix", "Rotated", "RotatedMatrix", "StreamedMatrix"],
        "newton": ["HessianModel", "refine"],
        "on_device": ["DeviceMatrix"],
        "problems": ["Problems", "Solution"],
    },
)

if TYPE_CHECKING:
    from featx.heads.solver.lbfgs import minimise as minimise
    from featx.heads.solver.losses import Logistic as Logistic
    from featx.heads.solver.losses import Loss as Loss
    from featx.heads.solver.losses import Softmax as Softmax
    from featx.heads.solver.losses import SquaredHinge as SquaredHinge
    from featx.heads.solver.matrices import DenseMatrix as DenseMatrix
    from featx.heads.solver.matrices import Matrix as Matrix
    from featx.heads.solver.matrices import Rotated as Rotated
    from featx.heads.solver.matrices import RotatedMatrix as RotatedMatrix
    from featx.heads.solver.matrices import StreamedMatrix as StreamedMatrix
    from featx.heads.solver.newton import HessianModel as HessianModel
    from featx.heads.solver.newton import refine as refine
    from featx.heads.solver.on_device import DeviceMatrix as DeviceMatrix
    from featx.heads.solver.problems import Problems as Problems
    from featx.heads.solver.problems import Solution as Solution

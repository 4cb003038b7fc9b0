"""The batched solver of linear heads: L-BFGS for many penalties and folds at once, and Newton steps for the final fit.

The public names are loaded on first use (PEP 562), so that only ``DeviceMatrix`` loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "DenseMatrix": "matrices",
    "DeviceMatrix": "on_device",
    "HessianModel": "newton",
    "Logistic": "losses",
    "Loss": "losses",
    "Matrix": "matrices",
    "Problems": "problems",
    "Rotated": "matrices",
    "RotatedMatrix": "matrices",
    "Softmax": "losses",
    "Solution": "problems",
    "SquaredHinge": "losses",
    "StreamedMatrix": "matrices",
    "minimise": "lbfgs",
    "refine": "newton",
}

__all__ = sorted(_HOMES)

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

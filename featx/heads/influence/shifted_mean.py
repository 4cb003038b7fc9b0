"""What it changes about a head with a penalised intercept that a fit without an image centres the features anew.

n images in V views. Without an image the mean of the features moves by d, which is minus the sum of the image's rows divided by
the number of the others. The penalty is then on b + w d in place of the intercept b.
"""

from __future__ import annotations

import numpy as np

from featx.heads.influence.hessian import Inverse, Iterative


def shifted(
    hessian: Inverse | Iterative, strength: float, bias: float, score: np.ndarray, at_bias: float, kernel: np.ndarray,
    step: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Compute the effect on an output of an image, which each training image adds to it.

    It is one Newton step from the parameters without the training image, where the inverse Hessian is known; otherwise it is of
    the first order, at the parameters with it.

    Args:
        hessian: of an objective of one output.
        strength: of the penalty on the intercept.
        bias: the intercept.
        score: (n, V), the outputs of the training images less the intercept.
        at_bias: the inverse Hessian between the intercept and the image.
        kernel: (n, V), the inverse Hessian between the rows of each training image and the image.
        step: (n, V), by which the parameters differ along the rows of each training image.

    Returns:
        (n,) float64.
    """
    n, views = kernel.shape
    share = -1.0 / max((n - 1) * views, 1)  # d is this times the sum of the image's rows
    if not isinstance(hessian, Inverse):
        first: np.ndarray = strength * share * (at_bias * score + bias * (kernel - at_bias)).sum(axis=1)
        return first
    own, with_rows, among = hessian.products()
    # The inverse Hessian between (0, e) for the intercept, (d, 0) for the shift, and the rows: with the image, then without it.
    along_shift = share * (among.sum(axis=2) - views * with_rows)
    rows = {"e": with_rows, "d": along_shift, "t": kernel}
    ed = share * (with_rows.sum(axis=1) - views * own)
    dd = share * (along_shift.sum(axis=1) - views * ed)
    td = share * (kernel.sum(axis=1) - views * at_bias)

    def without(value: float | np.ndarray, first: str, second: str) -> np.ndarray:
        out: np.ndarray = value + np.einsum("ni,nij,nj->n", rows[first], hessian.spread, rows[second])
        return out

    ee, ed, dd = without(own, "e", "e"), without(ed, "e", "d"), without(dd, "d", "d")
    te, td = without(at_bias, "t", "e"), without(td, "t", "d")
    b = bias - np.einsum("ni,ni->n", with_rows, step)
    moved = share * score.sum(axis=1) - np.einsum("ni,ni->n", along_shift, step)  # w d
    # The gradient is g = strength (moved e + (b + moved) d); the Hessian gains strength ((e + d)(e + d)' - e e').
    sums = np.stack([ee + ed, ee], axis=1), np.stack([ed + dd, ed], axis=1)  # of e and d with e + d and e
    against = strength * (moved[:, None] * sums[0] + (b + moved)[:, None] * sums[1])
    between = np.stack([np.stack([ee + 2 * ed + dd, ee + ed], axis=1), np.stack([ee + ed, ee], axis=1)], axis=1)
    small = np.diag([1.0, -1.0]) / strength + between
    correction = np.linalg.solve(small, against[:, :, None])[:, :, 0]
    plain = strength * (moved * te + (b + moved) * td)
    target = np.stack([te + td, te], axis=1)
    result: np.ndarray = plain - (target * correction).sum(axis=1)
    return result

"""Hessians of linear heads: inverted, or solved by conjugate gradients.

n images in V views, N = n V rows of r coordinates and an intercept, k coupled outputs. The m = V k columns of an image are its
rows, each with each output. F (m, m) are the second derivatives of an image's loss by its outputs, M (m, m) the inverse Hessian
between its columns.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from featx.errors import HeadError
from featx.heads.influence.design import Design
from featx.heads.influence.problems import Problem

MAX_INVERTED = 2500
"""The largest side of a Hessian that is inverted; larger ones are solved by conjugate gradients."""
MAX_FACTORED = 16_384
"""The largest side of the matrix that preconditions them, which takes 8 bytes x side^2."""
CG_TOL, MAX_CG_ITER = 1e-4, 500
"""Relative residual at which conjugate gradients end, and the most iterations."""


class Inverse:
    """The inverse of a Hessian.

    Args:
        design: the rows.
        problem: at its optimum.
        parts: what makes the second derivatives of all rows.
        count: k.

    Attributes:
        spread: (n, m, m), F (I - M F)^-1, by which the inverse without an image differs, with F the second derivatives of its
            columns and M the inverse between them.
    """

    def __init__(self, design: Design, problem: Problem, parts: np.ndarray, count: int) -> None:
        self._design, self._count, self._strength = design, count, problem.strength
        side, m = design.side, design.views * count
        hessian = np.zeros((count * side, count * side))
        for _, rows, block in design.blocks(2):
            second = problem.hessian(parts[rows], rows)
            for a in range(count):
                for b in range(a + 1):
                    at = np.s_[a * side : (a + 1) * side, b * side : (b + 1) * side]
                    hessian[at] += block.T @ (second[:, a, b, None] * block)
        hessian[np.diag_indices_from(hessian)] += np.tile(problem.penalty(side), count)
        self._inverse = _inverse_of_lower(hessian)
        self._ratio, self.spread = np.empty((design.images, m, m)), np.empty((design.images, m, m))
        for images, rows, block in design.blocks(2 * count * count):
            second = problem.hessian(parts[rows], rows).reshape(-1, design.views, count, count)
            curvature = np.einsum("bvkl,vw->bvkwl", second, np.eye(design.views)).reshape(-1, m, m)
            self._ratio[images] = np.linalg.inv(np.eye(m) - curvature @ self._leverage(block))
            self.spread[images] = self._ratio[images] @ curvature

    def solve(self, target: np.ndarray) -> np.ndarray:
        """The inverse times a (k (r + 1),) vector."""
        out: np.ndarray = self._inverse @ target
        return out

    def step(self, residual: np.ndarray) -> np.ndarray:
        """The residuals of each image by a fit without it, (n, m), from the (N, k) ones: (I - F M)^-1 of them."""
        out: np.ndarray = np.einsum("nij,nj->ni", self._ratio, residual.reshape(self._ratio.shape[:2]))
        return out

    def rows(self, block: np.ndarray) -> np.ndarray:
        """The inverse times each of b rows with each output, in features: (b, k, k, D)."""
        k, side = self._count, self._design.side
        parts = [block @ self._inverse[a * side : (a + 1) * side] for a in range(k)]  # (b, k side) each
        stacked = np.stack(parts, axis=1).reshape(len(block), k, k, side)
        return self._design.outside(stacked[..., :-1])

    def diagonal(self) -> np.ndarray:
        """The diagonal of the inverse in features: (k, D)."""
        side, basis = self._design.side, self._design.basis
        out = np.empty((self._count, self._design.width))
        for a in range(self._count):
            part = self._inverse[a * side : (a + 1) * side - 1, a * side : (a + 1) * side - 1]
            if basis is None:
                out[a] = np.diag(part)
            else:
                inner = basis @ (part - np.eye(side - 1) / self._strength)
                out[a] = 1 / self._strength + np.einsum("dr,dr->d", inner, basis)
        return out

    def products(self) -> tuple[float, np.ndarray, np.ndarray]:
        """The inverse between the intercept and itself, it and the rows of each image (n, V), and these (n, V, V); k is 1."""
        n, V, of_intercept = self._design.images, self._design.views, self._inverse[-1]
        with_rows, among = np.empty((n, V)), np.empty((n, V, V))
        for images, _, block in self._design.blocks(2):
            with_rows[images] = (block @ of_intercept).reshape(-1, V)
            among[images] = self._leverage(block)
        return float(of_intercept[-1]), with_rows, among

    def _leverage(self, block: np.ndarray) -> np.ndarray:
        """The (b, m, m) inverse between the columns of b images."""
        V, k, side = self._design.views, self._count, self._design.side
        images = block.reshape(-1, V, side)
        out = np.empty((len(images), V, k, V, k))
        for a in range(k):
            for b in range(k):
                part = (block @ self._inverse[a * side : (a + 1) * side, b * side : (b + 1) * side]).reshape(
                    images.shape
                )
                out[:, :, a, :, b] = part @ images.transpose(0, 2, 1)
        return out.reshape(len(images), V * k, V * k)


def _inverse_of_lower(matrix: np.ndarray) -> np.ndarray:
    """Invert a positive definite matrix in place, of which the lower triangle is given."""
    failed: int
    inverse, failed = linalg.lapack.dpotrf(matrix.T, lower=0, overwrite_a=1, clean=0)
    if not failed:
        inverse, failed = linalg.lapack.dpotri(inverse, lower=0, overwrite_c=1)
    if failed:
        raise HeadError("the Hessian of the head is singular, so that the influence of training images is undefined")
    out: np.ndarray = np.triu(inverse) + np.triu(inverse, 1).T
    return out


class Iterative:
    """A Hessian that is too large to be inverted, solved by preconditioned conjugate gradients.

    The preconditioner takes the mean second derivative of all outputs for that of each, and so does the leverage of an image.

    Args:
        design: the rows.
        problem: at its optimum.
        parts: what makes the second derivatives of all rows.
        count: k.
    """

    def __init__(self, design: Design, problem: Problem, parts: np.ndarray, count: int) -> None:
        self._design, self._problem, self._parts, self._count = design, problem, parts, count
        side, V = design.side, design.views
        if side > MAX_FACTORED:
            raise HeadError(
                f"{len(design):,} rows of {design.width:,} features are too many for the influence of training images, which "
                f"factors a matrix whose side is the smaller of the two, at most {MAX_FACTORED - 1:,}"
            )
        mean, matrix = problem.mean_hessian(parts), np.zeros((side, side))
        for _, rows, block in design.blocks(2):
            matrix += block.T @ (mean[rows, None] * block)
        matrix[np.diag_indices(side)] += problem.penalty(side)
        self._factor = linalg.cho_factor(matrix, lower=True, overwrite_a=True)
        self._without = np.empty(
            (design.images, V, V)
        )  # the inverse of the preconditioner without the image, between its rows
        for images, rows, block in design.blocks(2):
            each = block.reshape(-1, V, side)
            leverage = each @ linalg.cho_solve(self._factor, block.T).T.reshape(each.shape).transpose(0, 2, 1)
            self._without[images] = np.linalg.solve(np.eye(V) - leverage * mean[rows].reshape(-1, 1, V), leverage)

    def solve(self, target: np.ndarray) -> np.ndarray:
        """The inverse times a (k (r + 1),) vector."""
        residual = target.reshape(self._count, self._design.side).copy()
        found = np.zeros_like(residual)
        least = CG_TOL * float(np.linalg.norm(residual))
        direction = z = self._precondition(residual)
        energy = float((residual * z).sum())
        for _ in range(MAX_CG_ITER):
            if float(np.linalg.norm(residual)) <= least or not energy > 0:
                break
            product = self._product(direction)
            length = energy / float((direction * product).sum())
            found += length * direction
            residual -= length * product
            z = self._precondition(residual)
            energy, last = float((residual * z).sum()), energy
            direction = z + energy / last * direction
        return found.ravel()

    def step(self, residual: np.ndarray) -> np.ndarray:
        """The residuals of each image by a fit without it, (n, m), from the (N, k) ones: (I - F M)^-1 = I + F M0 of them.

        M0 is the inverse without the image, so that the ratio is positive however rough M0 is.
        """
        V, k = self._design.views, self._count
        spread = (self._without @ residual.reshape(-1, V, k)).reshape(-1, k)
        out: np.ndarray = residual + self._problem.hessian_product(self._parts, slice(None), spread)
        return out.reshape(-1, V * k)

    def _precondition(self, vectors: np.ndarray) -> np.ndarray:
        solved: np.ndarray = linalg.cho_solve(self._factor, vectors.T).T
        return solved

    def _product(self, vectors: np.ndarray) -> np.ndarray:
        out: np.ndarray = vectors * self._problem.penalty(self._design.side)
        for _, rows, block in self._design.blocks():
            out += self._problem.hessian_product(self._parts[rows], rows, block @ vectors.T).T @ block
        return out

"""The evidence as a function of one number, and its maximum; see `tlcore.selection.evidence` for the formula.

With |y|^2 = 1 and the largest eigenvalue 1, u = log t and N rows,

    g(u) = (L(e^u) - L(inf)) / N = -1/2 log S(t) - 1/(2 N) sum_j log(1 + sigma_j / t),

and S(t) comes in two forms. From an eigenbasis, S = r0 + sum_j x_j^2 t / (sigma_j + t), which keeps all digits
however small S is. From a tridiagonal matrix T = Q^T (F^T F) Q and c = Q^T F^T y, S = 1 - c^T (T + t I)^-1 c,
which needs no eigenvectors, a quarter of the time, and loses digits where S is small.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

__all__ = ["RESIDUAL_FLOOR", "Curve", "SpectralCurve", "TridiagonalCurve"]

Float = NDArray[np.float64]
RESIDUAL_FLOOR = 1e-12
"""Smallest S(t), as a share of |y|^2: keeps the evidence finite where features explain the labels wholly."""
SPACING = 0.75
"""Distance of the grid's points in log t. A term of S changes from all to nothing over about 5."""
UPPER = math.log(1e9)
"""Above this g differs from its limit 0 by less than 1e-9."""


class Curve(ABC):
    """g(u) for K targets at once. `sigma` are the eigenvalues [r], ascending, the largest 1."""

    def __init__(self, sigma: Float, rows: int) -> None:
        self.sigma, self.rows = sigma, rows

    @property
    @abstractmethod
    def lowest(self) -> float:
        """The u below which g has no maximum that counts."""

    @abstractmethod
    def residual_grid(self, t: Float) -> tuple[Float, Float]:
        """S and dS/du at places t [m] shared by all targets, [m, K] each."""

    @abstractmethod
    def residual_at(self, t: Float, target: NDArray[np.intp]) -> tuple[Float, Float, Float]:
        """S, dS/du and d2S/du2 at one place t [p] each for the targets with index `target` [p]."""

    def on_grid(self, grid: Float) -> tuple[Float, Float]:
        """g and its derivative at places u [m] shared by all targets, [m, K] each."""
        t = np.exp(grid)
        left, fall = self.residual_grid(t)
        fall[left <= RESIDUAL_FLOOR] = 0.0
        left = np.maximum(left, RESIDUAL_FLOOR)
        ratio = self.sigma / t[:, None]
        penalty = np.log1p(ratio).sum(axis=1) / (2 * self.rows)
        gain = (ratio / (1 + ratio)).sum(axis=1) / (2 * self.rows)
        return -0.5 * np.log(left) - penalty[:, None], gain[:, None] - 0.5 * fall / left

    def at(self, place: Float, target: NDArray[np.intp]) -> tuple[Float, Float, Float]:
        """g and its first two derivatives at one place [p] each for the targets with index `target` [p]."""
        t = np.exp(place)
        left, fall, bend = self.residual_at(t, target)
        clamped = left <= RESIDUAL_FLOOR
        fall[clamped] = bend[clamped] = 0.0
        left = np.maximum(left, RESIDUAL_FLOOR)
        slope = fall / left
        ratio = self.sigma / t[:, None]
        shrunk = ratio / (1 + ratio)
        value = -0.5 * np.log(left) - np.log1p(ratio).sum(axis=1) / (2 * self.rows)
        first = -0.5 * slope + shrunk.sum(axis=1) / (2 * self.rows)
        second = -0.5 * (bend / left - slope**2) - (shrunk / (1 + ratio)).sum(axis=1) / (2 * self.rows)
        return value, first, second

    def maximum(self) -> tuple[Float, Float]:
        """The largest g per target, and where: over the grid and over every peak between its points."""
        points = math.ceil((UPPER - self.lowest) / SPACING) + 1
        grid = np.linspace(self.lowest, UPPER, points)
        values, slopes = self.on_grid(grid)
        target = np.arange(values.shape[1])
        top = values.argmax(axis=0)
        best, place = values[top, target], grid[top]
        # A peak lies wherever the derivative turns from rising to falling.
        cell, peak = np.nonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
        if cell.size:
            found = self._climb(grid[cell], grid[cell + 1], peak)
            reached = self.at(found, peak)[0]
            for value, where, owner in zip(reached, found, peak, strict=True):
                if value > best[owner]:
                    best[owner], place[owner] = value, where
        return best, place

    def _climb(self, low: Float, high: Float, target: NDArray[np.intp]) -> Float:
        """The peak in each bracket [low, high], by Newton steps, halving where they fail or are slow.

        Ends within 1e-7 in log t, where g is flat: the value is then exact to rounding.
        """
        place = (low + high) / 2
        open_ = np.arange(place.size)
        for round_ in range(48):
            _, first, second = self.at(place[open_], target[open_])
            rising = first > 0
            low[open_[rising]] = place[open_[rising]]
            high[open_[~rising]] = place[open_[~rising]]
            middle = (low[open_] + high[open_]) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = place[open_] - first / second
            inside = (second < 0) & (newton >= low[open_]) & (newton <= high[open_])
            # The floor of S makes a kink, which Newton steps cannot find: halve from round 12 on.
            step = np.where(inside & (round_ < 12), newton, middle)
            near = (np.abs(step - place[open_]) < 1e-7) | (high[open_] - low[open_] < 1e-7)
            place[open_] = step
            open_ = open_[~near]
            if not open_.size:
                break
        return place


class SpectralCurve(Curve):
    """From an eigenbasis: `explained` [r, K] is the share x_j^2 of |y|^2 along each left singular vector."""

    def __init__(self, sigma: Float, explained: Float, rows: int) -> None:
        super().__init__(sigma, rows)
        self.explained = explained
        # With as many eigenvalues as rows nothing can be left over; do not let rounding say otherwise.
        rest = np.maximum(1.0 - explained.sum(axis=0), 0.0)
        self.rest = np.zeros_like(rest) if sigma.size >= rows else rest

    @property
    def lowest(self) -> float:
        """Below it every factor t / (sigma + t) is under the floor of S."""
        return math.log(0.1 * RESIDUAL_FLOOR * self.sigma[0])

    def residual_grid(self, t: Float) -> tuple[Float, Float]:
        kept = t[:, None] / (
            self.sigma + t[:, None]
        )  # not 1 - shrunk, which loses all digits where t << sigma
        shrunk = self.sigma / (self.sigma + t[:, None])
        return self.rest + kept @ self.explained, (kept * shrunk) @ self.explained

    def residual_at(self, t: Float, target: NDArray[np.intp]) -> tuple[Float, Float, Float]:
        kept = t[:, None] / (self.sigma + t[:, None])
        shrunk = self.sigma / (self.sigma + t[:, None])
        product = kept * shrunk
        energy = self.explained.T[target]
        return (
            self.rest[target] + np.einsum("pr,pr->p", energy, kept),
            np.einsum("pr,pr->p", energy, product),
            np.einsum("pr,pr,pr->p", energy, product, shrunk - kept),
        )


class TridiagonalCurve(Curve):
    """From a tridiagonal matrix with `diagonal` [D] and `beside` [D-1], and `cross` = c [D, K].

    Args:
        sigma: the matrix's eigenvalues that are features and not rounding.
        diagonal, beside, cross: in the same units: largest eigenvalue 1, |y|^2 = 1.
    """

    def __init__(self, sigma: Float, diagonal: Float, beside: Float, cross: Float, rows: int) -> None:
        super().__init__(sigma, rows)
        self.diagonal, self.beside, self.cross = diagonal, beside, cross

    @property
    def lowest(self) -> float:
        """A thousandth of the least eigenvalue: every direction is used all but wholly."""
        return math.log(1e-3 * self.sigma[0])

    def reliable(self, place: Float) -> bool:
        """Whether the maxima at `place` [K] are the global ones, to within the digits that this form has.

        The error of S is about 1e-16 times the condition of T + t I, and divided by S in the end. And left of
        the grid g may not rise again: there S' is all but proportional to t, so it is enough that S is far
        from being used up where the grid begins.
        """
        t = np.exp(place)
        left = self.residual_at(t, np.arange(t.size))[0]
        first, fall = self.residual_grid(np.exp([self.lowest]))
        spare = 0.1 * min(1.0, self.sigma.size / self.rows)
        return bool(((left > 1e-4) & (t * left > 1e-9)).all() and (fall < spare * first).all())

    def residual_grid(self, t: Float) -> tuple[Float, Float]:
        found = [self._solved(place, self.cross) for place in t]
        left = np.array([1.0 - np.einsum("dk,dk->k", self.cross, one) for one in found])
        return left, np.array(
            [place * np.einsum("dk,dk->k", one, one) for place, one in zip(t, found, strict=True)]
        )

    def residual_at(self, t: Float, target: NDArray[np.intp]) -> tuple[Float, Float, Float]:
        found = np.empty((3, t.size))
        for index, (place, owner) in enumerate(zip(t, target, strict=True)):
            cross = self.cross[:, owner]
            once = self._solved(place, cross)
            twice = self._solved(place, once)
            fall = place * float(once @ once)
            found[:, index] = 1.0 - cross @ once, fall, fall - 2 * place**2 * float(once @ twice)
        return found[0], found[1], found[2]

    def _solved(self, t: float, right: Float) -> Float:
        """(T + t I)^-1 right, of right's shape; T is never indefinite by more than t."""
        from scipy.linalg.lapack import dptsv

        solution: Float = dptsv(self.diagonal + t, self.beside, right)[2]
        return solution.reshape(right.shape)

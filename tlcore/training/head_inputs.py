"""What solvers of heads have in common: standardised features, their row space, the classes that have images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError, UserError
from tlcore.training.copies import copies_in, with_others
from tlcore.training.plan import HeadProblem

__all__ = ["Labelled", "Standard", "few_threads", "labelled", "rotated", "widened"]

Float = NDArray[np.float64]
NEVER = -30.0
"""Logit of a class without images. The others' logits are made to sum to zero, so that one of them is above it."""


@dataclass(frozen=True)
class Standard:
    """Mean and spread of features, to bring them to zero mean and unit variance and a head back from there.

    mean: float64 [d]. scale: float64 [d]; infinite for a feature that hardly varies, which would be blown up into
    noise: it becomes 0, and so does its weight.
    """

    mean: Float
    scale: Float

    @classmethod
    def of(
        cls,
        features: NDArray[np.floating],
        weights: NDArray[np.floating] | None = None,
        *,
        common: bool = False,
    ) -> Standard:
        """Of the rows of features [n, d].

        weights: how often each row counts [n]; once where None. common: one scale for all features, the root of their
        mean variance: for coordinates whose lengths relative to each other mean something.
        """
        counted = np.ones(len(features)) if weights is None else np.asarray(weights, np.float64)
        rows = features.astype(np.float64)
        mean = counted @ rows / counted.sum()
        rows -= mean
        variance = np.einsum("n,nd,nd->d", counted, rows, rows) / counted.sum()
        return cls.from_moments(mean, variance, common=common)

    @classmethod
    def from_moments(cls, mean: Float, variance: Float, *, common: bool = False) -> Standard:
        """Of features whose mean [d] and variance [d] are known."""
        spread = np.sqrt(variance)
        if common:
            spread = np.full_like(spread, np.sqrt((spread**2).mean()))
        return cls(mean, np.where(spread > 1e-6 * max(1e-12, float(spread.max())), spread, np.inf))

    def apply(self, features: NDArray[np.floating]) -> Float:
        """(x - mean) / scale, float64 [n, d]."""
        rows = features.astype(np.float64)
        rows -= self.mean
        rows *= 1 / self.scale
        return rows

    def unfold(self, weight: Float, bias: Float) -> tuple[Float, Float]:
        """The head on features [K, d], [K] that equals the head `weight`, `bias` on `apply(features)`."""
        raw = weight / self.scale
        return raw, bias - raw @ self.mean


@dataclass(frozen=True)
class Labelled:
    """Images and the classes among them: features float32 [n, d]; labels int64 [n], 0 … P-1, into `present` [P], whose
    entries are the problem's class numbers; counts [P]. groups int64 [n]: equal for copies of an image; None where all
    images differ."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    present: NDArray[np.int64]
    counts: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    @property
    def asked(self) -> NDArray[np.bool_]:
        """[n]: the images that can be held out (`with_others`)."""
        return with_others(self.labels, self.groups)

    @property
    def once(self) -> NDArray[np.intp]:
        """Positions of the images, of copies under one label only the first."""
        if self.groups is None:
            return np.arange(len(self.labels))
        return np.sort(np.unique(np.stack([self.labels, self.groups]), axis=1, return_index=True)[1])

    @property
    def images(self) -> int:
        """Images that are no copies of each other."""
        return len(self.labels) if self.groups is None else len(np.unique(self.groups))


def labelled(problem: HeadProblem, who: str) -> Labelled:
    """The problem's images by the classes that occur.

    Raises:
        UserError: fewer than two classes among the labels, or features that do not vary.
        PluginError: labels that are no classes; `who` is the fit that asks for them.
    """
    if problem.task != "classification":
        raise PluginError(f"{who} is for classes and got labels of a {problem.task} task")
    present, labels, counts = np.unique(problem.labels, return_inverse=True, return_counts=True)
    if len(present) < 2:
        raise UserError("a classifier needs at least two classes among the training labels", where=who)
    _check_spread(problem, who)
    return Labelled(
        problem.features, labels.astype(np.int64), present.astype(np.int64), counts.astype(np.int64), copies_in(problem)
    )  # fmt: skip


def _check_spread(problem: HeadProblem, who: str) -> None:
    if not np.isfinite(problem.features).all():
        raise UserError("the features hold values that are not finite", where=who)
    if not np.ptp(problem.features, axis=0).any():
        raise UserError(
            "the features of all training images are the same", where=who, hint="choose another model"
        )


def rotated(rows: Float) -> tuple[Float, Float, Float]:
    """Rows [n, d] in the principal axes of their row space: coordinates [n, r], axes [d, r], squared lengths s [r].

    coordinates = rows @ axes, coordinates^T coordinates = diag(s), s from small to large. Directions along which the
    rows extend less than a millionth as far as along the longest are left out. By the eigenvalues of the smaller of
    rows^T rows and rows rows^T: O(n d min(n, d)).
    """
    n, d = rows.shape
    square, vectors = np.linalg.eigh(rows @ rows.T if n < d else rows.T @ rows)
    kept = square > 1e-12 * max(float(square[-1]), 1e-300)
    square, vectors = square[kept], vectors[:, kept]
    if n < d:
        length = np.sqrt(square)
        return vectors * length, (rows.T @ vectors) / length, square
    return rows @ vectors, vectors, square


def widened(
    weight: Float, bias: Float, present: NDArray[np.int64], classes: int, *, balanced: bool = True
) -> tuple[Float, Float]:
    """A head of the present classes [P, d], [P] as one of all, [K, d], [K]: the others get weight 0 and bias -30.

    balanced: take the mean over classes out of the weights and biases first, which changes no probability.
    """
    if balanced:
        weight, bias = weight - weight.mean(0), bias - bias.mean()
    whole, offset = np.zeros((classes, weight.shape[1])), np.full(classes, NEVER)
    whole[present], offset[present] = weight, bias
    return whole, offset


@contextmanager
def few_threads(values: int) -> Iterator[None]:
    """One BLAS thread for arrays of few values: more would cost several times the CPU time and save none."""
    from tlcore.selection.blas import calm_blas

    with calm_blas(0 if values < 4_000_000 else values):
        yield

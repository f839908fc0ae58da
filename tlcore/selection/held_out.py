"""Parts of the images in few coordinates: what held-out scores are computed from.

All parts are counted about one point, the mean of all images, and with far fewer images than features in
coordinates of the space that the images span, where a decomposition costs n^3 and not D^3. Inner products are the
same there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.features.moments import Moments

__all__ = ["Part", "parts_of"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """Sums over some of the images, in r coordinates about the mean of all images.

    Attributes:
        counts: [K], images per class.
        sums: [K, r], sum of x per class.
        gram: [r, r], sum of x x^T.
    """

    counts: Float
    sums: Float
    gram: Float

    def __add__(self, other: Part) -> Part:
        return Part(self.counts + other.counts, self.sums + other.sums, self.gram + other.gram)

    def __sub__(self, other: Part) -> Part:
        return Part(self.counts - other.counts, self.sums - other.sums, self.gram - other.gram)

    @property
    def n(self) -> float:
        """Images."""
        return float(self.counts.sum())

    @property
    def means(self) -> Float:
        """[K, r], mean of x per class; 0 for a class that does not occur."""
        means: Float = self.sums / np.maximum(self.counts, 1.0)[:, None]
        return means


def parts_of(folds: Sequence[Moments]) -> list[Part]:
    """The folds' sums over the classes that occur anywhere, in r coordinates: D, or fewer than n where n < D / 2."""
    whole = Moments.merge(folds)
    present = whole.present
    # With nearly as many images as features the change of coordinates costs more than it saves.
    basis = _row_space(whole) if whole.dim > 2 * whole.n else None
    parts = []
    for fold in folds:
        fold = fold.rebased(whole.mean)
        counts, sums = fold.class_counts[present].astype(np.float64), fold.shifted_class_sums[present]
        if basis is None:
            parts.append(Part(counts, sums, fold.shifted_gram))
        else:
            parts.append(Part(counts, sums @ basis, basis.T @ fold.shifted_gram @ basis))
    return parts


def _row_space(whole: Moments) -> Float:
    """[D, r], orthonormal columns that span the images about their mean: O(D r^2)."""
    from scipy.linalg.lapack import dpstrf

    packed, pivots, rank, _ = dpstrf(whole.centred_gram.T, lower=1)
    rank = min(int(rank), whole.n)
    factor = np.empty((whole.dim, rank))
    factor[pivots - 1] = np.tril(packed[:, :rank])
    return np.asarray(np.linalg.qr(factor)[0], dtype=np.float64)

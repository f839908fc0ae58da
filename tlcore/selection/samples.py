"""Features of a bounded sample of the labelled images, checked, for scores that need single images.

Such scores cost n^2 D or worse, so they look at a stratified sample (`Evidence.sample`). All of them read
it here, so that each meets the same conditions with the same words: finite features that vary, at least
two classes, classes numbered without gaps. What is handed out is a copy: `Evidence` stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.features.rows import check_features, checked_labels
from tlcore.protocols import Evidence

__all__ = ["MINIMUM_IMAGES", "Sample", "labelled_sample", "principal_coordinates", "standardised"]

Float = NDArray[np.float64]
MINIMUM_IMAGES = 4
RANK_CUT = 1e-10
"""Eigenvalues of a covariance below this share of the largest one are rounding of float32 features."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Labelled features of m images.

    Attributes:
        features: [m, D], centred by their mean over the sample, so that no score hangs on an offset that
            all images share (a constant feature of 1e4 would drown every cosine).
        mean: [D], what was subtracted.
        labels: [m], 0 … classes-1; every class occurs.
        classes: K, the classes that occur.
    """

    features: Float
    mean: Float
    labels: NDArray[np.int64]
    classes: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """[K], images per class."""
        return np.bincount(self.labels, minlength=self.classes).astype(np.int64)

    @property
    def one_hot(self) -> Float:
        """[m, K]."""
        return np.asarray(np.eye(self.classes)[self.labels])


def labelled_sample(evidence: Evidence, limit: int, scorer: str, *, per_class: int = 1) -> Sample:
    """The sample of at most about `limit` images that `evidence` draws (the same for all candidates).

    Args:
        scorer: its name, for messages.
        per_class: images of classes with fewer than this many are left out.

    Raises:
        UserError: targets that are numbers; fewer than 4 images or 2 classes; features that are NaN or
            infinite (rows named) or that are the same for every image.
    """
    if evidence.regression is not None:
        raise UserError(
            f"{scorer} needs classes, and the targets of these images are numbers",
            hint="use logme",
        )
    every = evidence.features()
    codes = checked_labels(evidence.labels, len(every), evidence.moments.classes)
    rows = evidence.sample(limit)
    enough = np.bincount(codes[rows], minlength=1) >= per_class
    rows = rows[enough[codes[rows]]]
    if rows.size < MINIMUM_IMAGES:
        raise UserError(f"{scorer} needs at least {MINIMUM_IMAGES} labelled images, not {rows.size}")
    present, labels = np.unique(codes[rows], return_inverse=True)
    if present.size < 2:
        single = (
            "with at least two images each" if per_class > 1 else "; all labelled images are of one class"
        )
        raise UserError(
            f"{scorer} needs images of at least 2 classes{' ' if per_class > 1 else ''}{single}",
            hint="label images of a second class",
        )
    chosen = np.asarray(every[rows])
    check_features(chosen)
    features = chosen.astype(np.float64)
    magnitude = float(np.einsum("nd,nd->", features, features))
    mean = features.mean(axis=0)
    features -= mean
    if not float(np.einsum("nd,nd->", features, features)) > 1e-24 * magnitude:
        raise UserError("the features carry no variance: every image looks the same to this network")
    return Sample(features, mean, labels.astype(np.int64), int(present.size))


def standardised(sample: Sample) -> Float:
    """[m, D], each feature divided by its standard deviation; features that only rounding moves become 0."""
    spread = np.sqrt(np.mean(sample.features**2, axis=0))
    real = spread > np.maximum(1e-6 * np.abs(sample.mean), 1e-12 * spread.max())
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=real)
    return np.asarray(sample.features * scale)


def principal_coordinates(rows: Float, *, share: float = 1.0, limit: int | None = None) -> Float:
    """Centred rows [m, D] in the coordinates of their principal axes, the largest variance first, [m, r].

    All inner products between rows stay (share=1, limit=None); r <= min(m - 1, D). The eigenproblem is the
    smaller one of the [D, D] covariance and the [m, m] kernel.

    Args:
        share: keep as many axes as are needed for this share of the variance.
        limit: and no more than so many.
    """
    m, dim = rows.shape
    wide = dim > m
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int(np.count_nonzero(values > RANK_CUT * values[0]))
    needed = int(np.searchsorted(np.cumsum(values[:rank]), share * values[:rank].sum() * (1 - 1e-12))) + 1
    kept = min(rank, needed, rank if limit is None else limit)
    scale = np.sqrt(values[:kept])
    return np.asarray(vectors[:, :kept] * scale if wide else rows @ vectors[:, :kept])

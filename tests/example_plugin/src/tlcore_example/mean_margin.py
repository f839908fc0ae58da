"""Scorer `mean-margin`: how far the nearest other class mean is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer

if TYPE_CHECKING:
    from tlcore.features.moments import Moments

__all__ = ["MeanMargin", "mean_margin"]


def mean_margin(moments: Moments) -> float:
    """Mean over classes of the squared distance to the nearest other class mean, per feature variance.

    With class means m_i, class counts n_i, the total variance t_d and the pooled within-class variance w_d of
    feature d (divisors n - 1 and n - K), over the D features that vary:

        d2_ij = mean over d of ((m_id - m_jd)^2 - w_d (1 / n_i + 1 / n_j)) / t_d
        score = mean over i of min over j != i of d2_ij

    The subtracted term is what (m_id - m_jd)^2 is expected to be where the classes do not differ, so d2_ij is an
    unbiased estimate of the true squared distance up to t_d. Unchanged when features are shifted or scaled.

    Args:
        moments: n images, K classes; absent classes do not count.

    Raises:
        UserError: fewer than two classes, no more images than classes, or no feature that varies.
    """
    present = moments.present
    counts = moments.class_counts[present].astype(np.float64)
    classes, n = len(counts), moments.n
    if classes < 2:
        raise UserError(f"mean-margin needs images of at least 2 classes, not {classes}")
    if n <= classes:
        raise UserError(f"mean-margin needs more images than classes, not {n} images of {classes} classes")
    if not moments.varies:
        raise UserError("the features carry no variance: every image looks the same to this network")
    total = np.diag(moments.centred_gram) / (n - 1)
    sums, squares = moments.shifted_class_sums[present], moments.shifted_class_squares[present]
    within = np.maximum((squares - sums**2 / counts[:, None]).sum(0), 0) / (n - classes)
    kept = total > 1e-12 * total.max()
    means = moments.centred_class_sums[present] / counts[:, None] / np.sqrt(np.where(kept, total, np.inf))
    noise = float((within[kept] / total[kept]).sum())
    # ||a - b||^2 = ||a||^2 - 2 ab + ||b||^2 keeps the memory at K x K.
    norms = (means**2).sum(1)
    gaps = norms[:, None] - 2 * means @ means.T + norms
    distances = (gaps - noise * (1 / counts[:, None] + 1 / counts)) / kept.sum()
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(1).mean())


class MeanMargin(Scorer):
    """Distance between a class mean and its nearest neighbour, in units of the features' variance."""

    card: ClassVar[Card] = Card(
        name="mean-margin",
        summary="mean distance to the nearest other class mean, in units of the features' variance",
        reference="nearest-class-mean margin; formula in tlcore_example.mean_margin.mean_margin",
    )

    def score(self, evidence: Evidence) -> float:
        return mean_margin(evidence.moments)


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [MeanMargin]

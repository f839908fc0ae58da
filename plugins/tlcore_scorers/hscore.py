"""Scorer `hscore`: regularised H-score, between-class variance in the metric of a shrunk covariance."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.evidence import spectrum
from tlcore.selection.requirements import labelled_moments

if TYPE_CHECKING:
    from tlcore.features.moments import Moments

__all__ = ["HScore", "ledoit_wolf", "shrunk_h_score"]


def ledoit_wolf(moments: Moments) -> float:
    """The shrinkage intensity in [0, 1] that is nearest to the covariance of the population in mean square.

    With centred features x, S = sum x x^T / n and m = tr S / D (Ledoit & Wolf 2004, lemmas 3.2 to 3.4):

        d^2 = |S - m I|^2 / D,   b^2 = min(d^2, (sum |x|^4 / n - |S|^2) / (n D)),   alpha = b^2 / d^2,

    and 0 where S is m I already. Equal to scikit-learn's `ledoit_wolf_shrinkage`.
    """
    n, dim = moments.n, moments.dim
    covariance = moments.centred_gram / n
    size = float(np.einsum("ij,ij->", covariance, covariance))
    level = float(np.trace(covariance)) / dim
    distance = size - dim * level**2
    noise = max((moments.centred_quartic / n - size) / n, 0.0)
    # A difference of equal numbers: what rounding leaves of it is no distance.
    if distance <= 1e-14 * size or noise == 0.0:
        return 0.0
    return min(noise / distance, 1.0)


def shrunk_h_score(moments: Moments, alpha: float) -> float:
    """tr(((1 - alpha) S + alpha m I)^-1 (1 - alpha) S_b), S the covariance of the features, S_b that of their
    class means, m = tr S / D (Ibrahim, Ponomareva, Mazumder 2022, "Newer is not always better: Rethinking
    transferability metrics, their peculiarities, stability and performance", the shrinkage form).

    In [0, K - 1]. alpha = 0 is the H-score (Bao et al. 2019) with a pseudo-inverse, which any noise brings to K - 1
    where n <= D. alpha = 1 is 0: the features' variance cannot be told from that of noise, and no direction counts.
    """
    if alpha == 1.0:
        return 0.0
    n, present = moments.n, moments.present
    gram = moments.centred_gram
    # Columns b with S_b = B B^T / n.
    between = (moments.centred_class_sums[present] / np.sqrt(moments.class_counts[present])[:, None]).T
    floor = alpha * float(np.trace(gram)) / moments.dim
    if alpha == 0.0 or moments.dim > 2 * n:
        from tlcore.selection.blas import calm_blas

        with calm_blas(0):
            sigma, along = spectrum(gram, between, n - 1)
        return float(((1 - alpha) * along**2 / ((1 - alpha) * sigma + floor)[:, None]).sum())
    from scipy.linalg import cho_factor, cho_solve

    gram *= 1 - alpha
    gram[np.diag_indices_from(gram)] += floor
    solved = cho_solve(cho_factor(gram.T, overwrite_a=True, check_finite=False), between, check_finite=False)
    return float((1 - alpha) * np.einsum("dk,dk->", between, solved))


class HScore(Scorer):
    """Regularised H-score: 0 for features that say nothing, up to the number of classes less one.

    Features that occur twice raise it, those of pure noise too: Ledoit and Wolf's estimate takes the copies for
    structure and shrinks less.
    """

    card: ClassVar[Card] = Card(
        name="hscore",
        summary="variance between the classes in the metric of the Ledoit-Wolf covariance (regularised H-score)",
        reference="Ibrahim et al. 2022, Newer is not always better, H-score with shrinkage; Bao et al. 2019, H-score",
    )

    shrinkage: float | None = Field(
        None, ge=0, le=1, description="intensity of shrinking the covariance; none: Ledoit and Wolf's"
    )

    def score(self, evidence: Evidence) -> float:
        """`shrunk_h_score`: O(D^3 + D^2 K) in time, O(D n^2) with far fewer images than features."""
        moments = labelled_moments(evidence, self.card.name)
        alpha = ledoit_wolf(moments) if self.shrinkage is None else self.shrinkage
        return shrunk_h_score(moments, alpha)


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [HScore]

"""PARC: whether images that look alike to the network bear the same label."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.samples import labelled_sample, standardised

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Parc", "row_correlations"]


def row_correlations(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, n], Pearson's correlation of each row with each; 0 with a row that does not vary."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    varies = length > 1e-12 * np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=varies)
    return np.asarray(unit @ unit.T, dtype=np.float64)


class Parc(Scorer):
    """Spearman's correlation, over pairs of images, of the distances by features and by labels, in [-1, 1]."""

    card: ClassVar[Card] = Card(
        name="parc",
        summary="rank correlation of feature distances and label distances over pairs, at most 500 images",
        reference="Bolya et al. 2021, Scalable Diverse Model Selection (PARC); not multiplied by 100",
        traits=frozenset({"features"}),
    )

    max_images: int = Field(500, ge=10, le=5000, description="probe images; their pairs are compared")

    def score(self, evidence: Evidence) -> float:
        """Spearman's rho of 1 - corr(f_i, f_j) and 1 - corr(y_i, y_j) over all pairs i < j of images.

        Features are standardised over the sample, y is one-hot, corr is Pearson's over the entries of a
        vector. The paper reports 100 rho, and reduces features to 32 principal components in its variant
        that also weighs depth; here all features count. O(n^2 (D + log n)).

        Raises:
            UserError: no class has two images; see `tlcore.selection.samples.labelled_sample` for the rest.
        """
        from scipy.stats import rankdata

        sample = labelled_sample(evidence, self.max_images, "parc")
        if sample.counts.max() < 2:
            raise UserError(
                "parc needs a class with at least 2 images", hint="label more images, or choose another score"
            )
        pairs = np.triu_indices(sample.labels.size, 1)
        # Of one-hot labels 1 - corr takes two values, 0 for the same class and K / (K - 1) else, so that the
        # ranks of the label distances are a line through (same, other).
        other = (sample.labels[pairs[0]] != sample.labels[pairs[1]]).astype(np.float64)
        # Rounding must not order pairs that are equally far apart.
        ranks = rankdata(np.round(1.0 - row_correlations(standardised(sample))[pairs], 9))
        ranks -= ranks.mean()
        other -= other.mean()
        spread = float(ranks @ ranks)
        if spread == 0:
            return 0.0  # all pairs of images are equally far apart: the features order nothing
        return float(np.clip(ranks @ other / np.sqrt(spread * float(other @ other)), -1.0, 1.0))


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [Parc]

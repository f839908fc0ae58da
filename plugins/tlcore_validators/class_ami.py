"""Class AMI: choose the checkpoint whose predictions agree with the clusters of its features."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def cluster_agreement(
    features: NDArray[np.floating], predictions: NDArray[np.int64], clusters: int, starts: int
) -> float:
    """Adjusted mutual information of k-means clusters of features [n, d] and predictions int [n], at least 0: 1 where
    the two agree, 0 where no better than chance (Vinh, Epps & Bailey 2010, normalised by the mean of the entropies).

    0 also where all images are predicted alike or all features are equal: there is nothing to agree on. The clusters
    start from a fixed seed.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_mutual_info_score
    from threadpoolctl import threadpool_limits

    if len(np.unique(predictions)) < 2 or not np.ptp(features, axis=0).any():
        return 0.0
    # sums over threads come in any order: one thread, so that the same features give the same clusters
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct features than clusters
        found = KMeans(min(clusters, len(features)), n_init=starts, random_state=0).fit_predict(features)
    return max(0.0, float(adjusted_mutual_info_score(found, predictions)))


class ClassAmi(Validator):
    """Agreement of the target's predictions with a clustering of its features, 0 … 1."""

    card: ClassVar[Card] = Card(
        name="class-ami",
        summary="Adjusted mutual information of k-means on the target's features and the predictions",
        reference="Robbiano et al. 2021 (ABAS); as ClassAMI: Musgrave et al. 2022, arXiv:2208.07360",
        traits=frozenset({"target-data"}),
    )

    starts: int = Field(3, ge=1, le=100, description="starts of k-means, the tightest of which counts")

    def score(self, outputs: ValidatorOutputs) -> float:
        n, classes = outputs.target_probabilities.shape
        if not n or len(outputs.target_features) != n:
            raise UserError(
                f"{n} target predictions and {len(outputs.target_features)} features", where="class-ami"
            )
        predictions = outputs.target_probabilities.argmax(axis=1)
        return cluster_agreement(outputs.target_features, predictions, classes, self.starts)

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float]:
        return 0.0, 1.0


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [ClassAmi]

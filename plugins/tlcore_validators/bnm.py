"""Batch nuclear norm: choose the checkpoint whose predictions are certain on each image and span many classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from tlcore.evaluation.label_free import batch_nuclear_norm
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def nuclear_share(probabilities: NDArray[np.floating]) -> float:
    """||P||_* / sqrt(n min(n, K)): the sum of the singular values of P [n, K] over the largest that is possible
    (Cui et al. 2020, eq. 6 to 8).

    1 where every image is certain and the images are spread evenly over min(n, K) classes; 1 / sqrt(min(n, K)) where
    all are certain of the same class; 1 / sqrt(K min(n, K)) where nothing is known.

    Raises:
        UserError: no image. GateError: no probabilities.
    """
    n, classes = probabilities.shape
    return float(batch_nuclear_norm(probabilities) * n / math.sqrt(max(1, n * min(n, classes))))


class BatchNuclearNorm(Validator):
    """The nuclear norm of the target probabilities as a share of its maximum, in (0, 1]."""

    card: ClassVar[Card] = Card(
        name="bnm",
        summary="Nuclear norm of the target probabilities, as a share of its maximum: certain and diverse",
        reference="Cui et al. 2020, eq. 8; as a validator: Musgrave et al. 2022, arXiv:2208.07360",
        traits=frozenset({"target-data"}),
    )

    def score(self, outputs: ValidatorOutputs) -> float:
        return nuclear_share(outputs.target_probabilities)

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float]:
        n, classes = outputs.target_probabilities.shape
        return 1 / math.sqrt(max(1, classes * min(n, classes))), 1.0


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [BatchNuclearNorm]

"""Deep embedded validation: the source's validation risk, weighted to look like the target's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def dev_risk(weights: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """mean(w l) + eta mean(w) - eta, eta = -cov(w l, w) / var(w) (You et al. 2019, algorithm 1).

    weights: density ratios target / source [n]; losses [n]. The mean of w is 1 if the ratios are right, so that the
    control variate changes no expectation and takes variance away. Where all weights are equal eta is 0.
    """
    import numpy as np

    weighted = weights * losses
    centred = weights - weights.mean()
    variance = float((centred**2).sum())
    eta = 0.0
    if variance > 1e-12 * float((weights**2).sum()):
        eta = -float((centred * (weighted - weighted.mean())).sum()) / variance
    return float(np.mean(weighted) + eta * np.mean(weights) - eta)


class DeepEmbeddedValidation(Validator):
    """Minus the risk on the target, estimated from labelled source images by importance weights in feature space.

    Rests on overlap: where a classifier tells the domains apart without error no source image resembles the target,
    and the risk is an extrapolation that can leave its range.
    """

    card: ClassVar[Card] = Card(
        name="dev",
        summary="Minus the source validation risk, weighted towards the target in feature space, control variate",
        reference="You et al. 2019 (Deep Embedded Validation), algorithms 1 and 2",
        traits=frozenset({"source-data", "target-data"}),
    )

    loss: Literal["error", "log-loss"] = Field(
        "error",
        description="of a source image: 1 where it is wrong, or minus the log of its label's probability",
    )

    def score(self, outputs: ValidatorOutputs) -> float:
        import numpy as np

        from tlcore.evaluation.domain_gap import density_ratio

        labels = outputs.source_labels
        if not len(labels) or len(outputs.source_features) != len(labels):
            raise UserError(
                f"{len(labels)} labelled source validation images and {len(outputs.source_features)} features",
                where="dev",
            )
        weights = density_ratio(outputs.source_features, outputs.target_features)
        if self.loss == "error":
            losses = (outputs.source_probabilities.argmax(axis=1) != labels).astype(np.float64)
        else:
            likely = outputs.source_probabilities[np.arange(len(labels)), labels]
            losses = -np.log(np.maximum(likely, 1e-12))
        return 0.0 - dev_risk(weights, losses)


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [DeepEmbeddedValidation]

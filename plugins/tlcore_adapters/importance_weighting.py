"""Importance weighting: source images count as often as their like is found in the target."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.plan import HeadFit, HeadProblem, TrainPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def clipped_weights(ratio: NDArray[np.float64], power: float, clip: float) -> NDArray[np.float64]:
    """min(s ratio^power, clip), float64 [n], with the s for which the mean is 1 (Shimodaira 2000, section 4, for the
    power). What the largest lose goes to the others, so that at least n / clip images stay in effect.
    """
    import numpy as np

    raw = np.maximum(ratio, 1e-12) ** power
    largest = np.sort(raw)[::-1]
    # with the k largest at the clip, the others share n - k clip
    shared = len(raw) - clip * np.arange(len(raw))
    scale = shared / np.cumsum(largest[::-1])[::-1]
    clipped = int((scale * largest <= clip).argmax())
    return np.asarray(np.minimum(scale[clipped] * raw, clip))


def effective_images(weights: NDArray[np.float64]) -> float:
    """(sum w)^2 / sum w^2, 1 … n: how many equally weighted images would vary as little (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def weighted_head(
    problem: HeadProblem, *, power: float, clip: float, penalties: int, folds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Mapping[str, float]]:
    """Logistic regression on the source features, each image weighted by its density ratio target / source.

    The ratio comes from a cross-fitted domain classifier (`tlcore.evaluation.domain_gap.density_ratio`). Notes: the
    number of images that the weights leave in effect, and the largest weight.

    Raises:
        PluginError: no target features. UserError: fewer than two images of a domain, or fewer than two classes.
    """
    from tlcore.evaluation.domain_gap import density_ratio
    from tlcore.training.heads import logistic_head

    if problem.target is None:
        raise PluginError("importance-weighting needs the target's features")
    ratio = density_ratio(problem.features, problem.target, seed=problem.seed)
    weights = clipped_weights(ratio, power, clip)
    weight, bias, notes = logistic_head(problem, penalties=penalties, folds=folds, weights=weights)
    found = {"effective_images": effective_images(weights), "largest_weight": float(weights.max())}
    return weight, bias, {**notes, **found}


class ImportanceWeighting(Adapter):
    """Covariate shift in closed form: a head on the source images that resemble the target's.

    Helps where the domains overlap and their classes look alike; features by which the domains can be told apart
    without error leave few images in effect, which the notes show.
    """

    card: ClassVar[Card] = Card(
        name="importance-weighting",
        summary="Head fitted on source images weighted by how much they resemble the target's; seconds",
        reference="Shimodaira 2000, section 4; Bickel, Brueckner & Scheffer 2007 (ratio by a domain classifier)",
        traits=frozenset({"source-data", "target-data", "partial"}),
    )

    power: float = Field(
        1.0, ge=0, le=1, description="exponent of the weights: 1 as estimated, 0 all equal (Shimodaira 2000)"
    )
    clip: float = Field(10.0, gt=1, le=1e6, description="largest weight, as a multiple of the mean weight")
    penalties: int = Field(
        7, ge=1, le=50, description="penalty strengths of the head tried, log-spaced from 1e-4 to 1e2"
    )
    folds: int = Field(
        5, ge=2, le=20, description="cross-validation folds; fewer where a class has fewer images"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        fit = partial(
            weighted_head, power=self.power, clip=self.clip, penalties=self.penalties, folds=self.folds
        )
        return TrainPlan((HeadFit("importance-weighting", fit),))


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [ImportanceWeighting]

"""CORAL in closed form: source features are given the target's covariance, then the head is fitted on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError, UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.plan import HeadFit, HeadProblem, TrainPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def covariance_power(rows: NDArray[np.float64], ridge: float, power: float) -> NDArray[np.float64]:
    """(C + ridge I)^power, float64 [d, d]; C is the unbiased covariance of rows [n, d], n >= 2.

    From the singular vectors of the rows where there are fewer rows than features: outside their span C is 0.
    """
    import numpy as np

    centred = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    width = rows.shape[1]
    if len(rows) < width:
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        inside = (singular**2 + ridge) ** power - ridge**power
        return np.asarray((axes.T * inside) @ axes + ridge**power * np.eye(width))
    variance, columns = np.linalg.eigh(centred.T @ centred)
    return np.asarray((columns * (np.maximum(variance, 0) + ridge) ** power) @ columns.T)


def noise_edge(images: int, width: int) -> float:
    """(1 + sqrt(d / n))^2: the largest variance that n images of pure noise show along any direction of d standardised
    features (Marchenko & Pastur 1967). 1 for many images."""
    return float((1 + (width / images) ** 0.5) ** 2)


def recolour(source: NDArray[np.float64], target: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Source rows with the target's covariance, X_s (C_s + ridge I)^-1/2 (C_t + ridge I)^1/2 (Sun, Feng & Saenko 2016,
    algorithm 1, where ridge = 1).

    source: float64 [n, d], target: [m, d], each of zero mean; n, m >= 2. float64 [n, d].
    """
    whitened = source @ covariance_power(source, ridge, -0.5)
    return whitened @ covariance_power(target, ridge, 0.5)


def aligned_head(
    problem: HeadProblem, *, ridge: float | None, penalties: int, folds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Mapping[str, float]]:
    """The head for raw target features [K, d], [K]: logistic regression on recoloured source features.

    Each domain is standardised by its own statistics, as in the paper; those of the target are folded into the head.
    ridge: None for the `noise_edge` of the smaller domain.

    Raises:
        PluginError: no target features.
        UserError: fewer than two images of a domain, or fewer than two classes.
    """
    import numpy as np

    from tlcore.training.heads import Standard, logistic_head

    if problem.target is None:
        raise PluginError("coral-align needs the target's features")
    images = min(len(problem.features), len(problem.target))
    if images < 2:
        raise UserError("a covariance takes at least two images of each domain", where="coral-align")
    if ridge is None:
        ridge = noise_edge(images, problem.features.shape[1])
    own, other = Standard.of(problem.features), Standard.of(problem.target)
    aligned = recolour(own.apply(problem.features), other.apply(problem.target), ridge)
    weight, bias, notes = logistic_head(
        replace(problem, features=aligned.astype(np.float32)), penalties=penalties, folds=folds
    )
    return *other.unfold(weight, bias), {**notes, "ridge": ridge}


class CoralAlign(Adapter):
    """Whiten the source features, recolour them with the target's covariance, fit the head on the result."""

    card: ClassVar[Card] = Card(
        name="coral-align",
        summary="Closed form: source features recoloured with the target's covariance, then a head on them; seconds",
        reference="Sun, Feng & Saenko 2016, algorithm 1",
        traits=frozenset({"source-data", "target-data", "target-only"}),
    )

    ridge: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="added to the variances of the standardised features, 1 in the paper; none: (1 + sqrt(d/n))^2, "
        "which is 1 for many images and more where n images are too few for d features",
    )
    penalties: int = Field(
        7, ge=1, le=50, description="penalty strengths of the head tried, log-spaced from 1e-4 to 1e2"
    )
    folds: int = Field(
        5, ge=2, le=20, description="cross-validation folds; fewer where a class has fewer images"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        fit = partial(aligned_head, ridge=self.ridge, penalties=self.penalties, folds=self.folds)
        return TrainPlan((HeadFit("coral-align", fit),))


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [CoralAlign]

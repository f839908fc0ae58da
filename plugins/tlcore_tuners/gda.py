"""GDA: Gaussian classes with one shared covariance matrix, on the frozen network's features."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.plan import HeadFit, TrainPlan


class GaussianDiscriminantAnalysis(Tuner):
    """Fit the head by class means and a shared covariance, which is shrunk as leave-one-out says; nothing is trained."""

    card: ClassVar[Card] = Card(
        name="gda",
        summary="Gaussian discriminant analysis on frozen features, shrinkage by leave-one-out; seconds",
        reference="Wang et al. 2024, A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation; Friedman 1989",
        traits=frozenset({"target-labels"}),
    )
    searched: ClassVar[tuple[str, ...]] = ()

    shrinkages: int = Field(
        13,
        ge=1,
        le=200,
        description="strengths of the shrinkage tried, 1e-3 to 1e3 of the mean variance; 1: that of the paper",
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        from tlcore.training.heads import gda_head

        return TrainPlan((HeadFit(self.card.name, partial(gda_head, shrinkages=self.shrinkages)),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [GaussianDiscriminantAnalysis]

"""Prototype: the nearest class mean among the frozen network's features."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.plan import HeadFit, TrainPlan


class Prototype(Tuner):
    """One mean a class; the nearest one answers. Works from one image a class on."""

    card: ClassVar[Card] = Card(
        name="prototype",
        summary="Nearest class mean on frozen features, by direction or by Mahalanobis distance; from one image a class",
        reference="Snell, Swersky & Zemel 2017, section 2; Wang et al. 2019 (SimpleShot), section 3; Ledoit & Wolf 2004",
        traits=frozenset({"target-labels"}),
    )

    metric: Literal["cosine", "mahalanobis"] = Field(
        "cosine",
        description="cosine: directions from the mean of all images; mahalanobis: distance by the shared covariance, "
        "shrunk by Ledoit and Wolf's formula",
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        from tlcore.training.heads import prototype_head

        return TrainPlan((HeadFit(self.card.name, partial(prototype_head, metric=self.metric)),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Prototype]

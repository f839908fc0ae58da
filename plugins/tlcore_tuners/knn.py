"""kNN: the training images nearest to an image vote for its class."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.plan import HeadFit, TrainPlan


class KNearestNeighbours(Tuner):
    """Nothing is trained: the features of the training images are stored in the network and asked by direction."""

    card: ClassVar[Card] = Card(
        name="knn",
        summary="Vote of the nearest training images on frozen features; they are stored in the exported file",
        reference="Wu et al. 2018, Unsupervised Feature Learning via Instance Discrimination, section 3.4",
        traits=frozenset({"target-labels"}),
    )
    searched: ClassVar[tuple[str, ...]] = ()

    neighbours: int | None = Field(
        None, ge=1, le=1000, description="k, images that vote; none: by leave-one-out, 1 to 50"
    )
    temperature: float | None = Field(
        None,
        ge=0.01,
        le=10,
        description="a vote weighs exp(cosine / temperature); none: by leave-one-out, 0.01 to 0.5",
    )
    max_images: int = Field(
        5000, ge=10, le=100_000, description="images that are stored; of more, the same share of each class"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        from tlcore.training.heads import knn_head

        fit = partial(
            knn_head, neighbours=self.neighbours, temperature=self.temperature, max_images=self.max_images
        )
        return TrainPlan((HeadFit(self.card.name, fit),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [KNearestNeighbours]

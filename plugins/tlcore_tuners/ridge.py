"""Ridge: a ridge regression on the frozen network's features, in closed form."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.plan import HeadFit, TrainPlan


class Ridge(Tuner):
    """Fit the head by ridge regression; its penalty by leave-one-out, in closed form as well.

    One decomposition of the features serves all penalties and all images that are left out. Classes are regressed as
    one-hot targets, tags as 0 and 1, numbers as they are.
    """

    card: ClassVar[Card] = Card(
        name="ridge",
        summary="Ridge regression on frozen features, penalty by leave-one-out; for classes, tags and numbers; seconds",
        reference="Hoerl & Kennard 1970; Hastie, Tibshirani & Friedman 2009, eq. 3.44 and 7.64",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )
    searched: ClassVar[tuple[str, ...]] = ()

    penalties: int = Field(
        40, ge=1, le=1000, description="penalties tried, 1e-6 to 1e2 of the features' largest squared extent"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        from tlcore.training.heads import ridge_head

        return TrainPlan((HeadFit(self.card.name, partial(ridge_head, penalties=self.penalties)),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Ridge]

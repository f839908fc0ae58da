"""Linear probe: a logistic regression on the frozen network's features."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.heads import logistic_head
from tlcore.training.plan import HeadFit, TrainPlan


class LinearProbe(Tuner):
    """Fit the head by L-BFGS on standardised features; the strength of its penalty by cross-validation."""

    card: ClassVar[Card] = Card(
        name="linear-probe",
        summary="Logistic regression on frozen features, penalty by cross-validation; seconds",
        reference="Alain & Bengio 2016; Kornblith, Shlens & Le 2019, section 3 (L-BFGS on frozen features)",
        traits=frozenset({"target-labels"}),
    )

    penalties: int = Field(7, ge=1, le=50, description="penalty strengths tried, log-spaced from 1e-4 to 1e2")
    folds: int = Field(
        5, ge=2, le=20, description="cross-validation folds; fewer where a class has fewer images"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        return TrainPlan(
            (HeadFit("linear-probe", partial(logistic_head, penalties=self.penalties, folds=self.folds)),)
        )


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [LinearProbe]

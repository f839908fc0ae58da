"""Linear probe: a logistic regression on the frozen network's features."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.plan import HeadFit, TrainPlan


class LinearProbe(Tuner):
    """Fit the head by L-BFGS on frozen features; the strength of its penalty by cross-validation."""

    card: ClassVar[Card] = Card(
        name="linear-probe",
        summary="Logistic regression on frozen features, penalty by cross-validation; seconds",
        reference="Alain & Bengio 2016; Kornblith, Shlens & Le 2019, section 3 (L-BFGS on frozen features)",
        traits=frozenset({"target-labels"}),
    )
    searched: ClassVar[tuple[str, ...]] = ("scale",)

    penalties: int = Field(7, ge=1, le=50, description="penalty strengths tried, log-spaced from 1e-4 to 1e2")
    folds: int = Field(
        5, ge=2, le=20, description="cross-validation folds; fewer where a class has fewer images"
    )
    scale: Literal["common", "each"] = Field(
        "common",
        description="common: one unit for all features; each: unit variance of every feature, which a few images "
        "cannot tell",
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        from tlcore.training.heads import logistic_head

        fit = partial(
            logistic_head, penalties=self.penalties, folds=self.folds, common_scale=self.scale == "common"
        )
        return TrainPlan((HeadFit(self.card.name, fit),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [LinearProbe]

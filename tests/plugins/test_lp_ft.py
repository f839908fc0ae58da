from __future__ import annotations

import pytest

from tlcore.protocols import TrainTask
from tlcore.training.plan import HeadFit, Phase
from tlcore_tuners.lp_ft import LpFt


def test_the_probe_comes_first_and_then_everything_is_tuned() -> None:
    probe, tune = LpFt(epochs=4).plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(probe, HeadFit) and isinstance(tune, Phase)
    assert (probe.name, tune.name) == ("probe", "fine-tune")
    assert [group.parameters for group in tune.moves[0].groups] == ["head", "backbone"] and tune.epochs == 4


def test_head_and_backbone_share_one_rate_and_statistics_stay() -> None:
    _, tune = LpFt().plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(tune, Phase) and tune.frozen_statistics and tune.epochs == 5
    assert {group.lr for group in tune.moves[0].groups} == {1e-4}


@pytest.mark.parametrize("task", ["classification", "regression", "multi-label"])
def test_the_probe_fits_the_kind_of_labels(task: str) -> None:
    first, _ = LpFt(penalties=3).plan(TrainTask(("a",), 8, 40, task=task)).phases  # type: ignore[arg-type]
    assert isinstance(first, HeadFit)
    fit = first.fit.func.__name__  # type: ignore[union-attr]
    assert fit == ("logistic_head" if task == "classification" else "ridge_head")
    tried = 3 if task == "classification" else 40  # in closed form many cost as much as few
    assert first.fit.keywords["penalties"] == tried  # type: ignore[union-attr]

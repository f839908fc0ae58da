from __future__ import annotations

from tlcore.protocols import TrainTask
from tlcore.training.plan import HeadFit, Phase
from tlcore_tuners.lp_ft import LpFt


def test_the_probe_comes_first_and_then_everything_is_tuned() -> None:
    probe, tune = LpFt(epochs=4).plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(probe, HeadFit) and isinstance(tune, Phase)
    assert tune.moves[0].groups[0].parameters == "all" and tune.epochs == 4

from __future__ import annotations

from tlcore.protocols import TrainTask
from tlcore.training.plan import HeadFit
from tlcore_tuners.linear_probe import LinearProbe


def test_the_plan_is_one_head_fit_without_gradient_steps() -> None:
    (phase,) = LinearProbe().plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(phase, HeadFit)

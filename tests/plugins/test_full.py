from __future__ import annotations

from tlcore.protocols import TrainTask
from tlcore.training.plan import Phase
from tlcore_tuners.full import Full


def test_every_weight_may_change_and_the_head_learns_faster() -> None:
    (phase,) = Full(lr=1e-4, head_factor=10, epochs=2).plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(phase, Phase) and phase.epochs == 2
    rates = {group.parameters: group.lr for group in phase.moves[0].groups}
    assert rates.keys() == {"head", "backbone"} and rates["head"] == 10 * rates["backbone"]

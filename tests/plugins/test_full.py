from __future__ import annotations

import pytest

from tlcore.protocols import TrainTask
from tlcore.training.plan import Phase
from tlcore_tuners.full import Full


def test_every_weight_may_change_and_the_head_learns_faster() -> None:
    (phase,) = Full(lr=1e-4, head_factor=10, epochs=2).plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(phase, Phase) and phase.epochs == 2 and phase.name == "full"
    rates = {group.parameters: group.lr for group in phase.moves[0].groups}
    assert rates.keys() == {"head", "backbone"} and rates["head"] == pytest.approx(10 * rates["backbone"])


def test_the_defaults_are_those_of_the_benchmarks() -> None:
    tuner = Full()
    assert (tuner.epochs, tuner.lr, tuner.head_factor, tuner.smoothing) == (15, 3e-4, 10.0, 0.1)
    assert not tuner.frozen_statistics


def test_what_goes_on_around_the_phase_reaches_it() -> None:
    options = Full(
        mixup=0.2, ema=0.9, sam=0.05, patience=3, wise=True, layer_decay=0.7, randaugment="rand-m5"
    )
    (phase,) = options.plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(phase, Phase)
    assert (phase.mixup, phase.ema, phase.sam, phase.patience, phase.randaugment) == (
        0.2,
        0.9,
        0.05,
        3,
        "rand-m5",
    )
    assert phase.interpolate == (0.2, 0.4, 0.6, 0.8)
    assert [group.layer_decay for group in phase.moves[0].groups] == [1.0, 0.7]

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.tuned import job
from tlcore.protocols import TrainTask
from tlcore.training.loop import run_plan
from tlcore.training.plan import Phase
from tlcore_tuners.scratch import Scratch


def test_it_asks_for_a_random_start_and_moves_everything_at_one_rate() -> None:
    assert "random-start" in Scratch.card.traits
    (phase,) = Scratch().plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(phase, Phase) and phase.epochs == 100 and not phase.frozen_statistics
    assert {group.parameters: group.lr for group in phase.moves[0].groups} == {"head": 1e-3, "backbone": 1e-3}


@pytest.mark.slow
def test_random_weights_learn_what_is_easy(tmp_path: Path) -> None:
    result = run_plan(job(Scratch(epochs=6, augment="none"), tmp_path, count=48))
    assert result.measures["validation_accuracy"] > 0.9

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.tuned import job, small_network
from tlcore.protocols import TrainTask
from tlcore.training.loop import run_plan
from tlcore.training.plan import HeadFit, Phase
from tlcore_tuners.gradual_unfreezing import GradualUnfreezing, shared_epochs

TASK = TrainTask(("a", "b"), 8, 40)


def phases(tuner: GradualUnfreezing) -> list[Phase]:
    first, *rest = tuner.plan(TASK).phases
    assert isinstance(first, HeadFit) and all(isinstance(one, Phase) for one in rest)
    return rest  # type: ignore[return-value]


@given(st.integers(1, 60), st.integers(1, 20))
def test_epochs_are_shared_without_loss_and_every_phase_has_one(epochs: int, count: int) -> None:
    shares = shared_epochs(epochs, count)
    assert sum(shares) == epochs and len(shares) == min(epochs, count) and min(shares) >= 1
    assert shares[-1] == max(shares)


def test_stage_after_stage_is_unfrozen_from_the_head_downwards() -> None:
    unfrozen = [phase.moves[0].groups[1].parameters for phase in phases(GradualUnfreezing(stages=4))]
    assert unfrozen == ["last:1", "last:2", "last:3", "backbone"]
    assert [phase.epochs for phase in phases(GradualUnfreezing(stages=3, epochs=8))] == [2, 2, 4]


def test_one_stage_is_lp_ft() -> None:
    (only,) = phases(GradualUnfreezing(stages=1))
    assert only.moves[0].groups[1].parameters == "backbone" and only.epochs == 8


def test_lower_layers_have_lower_rates() -> None:
    assert {phase.moves[0].groups[1].layer_decay for phase in phases(GradualUnfreezing())} == {0.75}


@pytest.mark.slow
@pytest.mark.parametrize("stages", [2, 9], ids=["fewer than the network has", "more than it has"])
def test_it_trains_and_the_stem_moves_last(tmp_path: Path, stages: int) -> None:
    network = small_network()
    before = network.backbone.conv1[0].weight.detach().clone()
    result = run_plan(job(GradualUnfreezing(epochs=stages, stages=stages), tmp_path, network=network))
    names = [line.phase for line in result.history]
    assert names[0] == "probe" and names[-1] == "unfreeze backbone" and len(names) == stages + 1
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert before.shape == network.backbone.conv1[0].weight.shape

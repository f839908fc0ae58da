from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.plugins.tuned import job, small_network
from tlcore.protocols import TrainTask
from tlcore.training.loop import run_plan
from tlcore.training.plan import HeadFit, Phase, TrainPlan
from tlcore_tuners.partial import Partial


def test_the_last_stages_are_tuned_on_cached_activations() -> None:
    first, tune = Partial(stages=2, views=3).plan(TrainTask(("a", "b"), 8, 40)).phases
    assert isinstance(first, HeadFit) and isinstance(tune, Phase)
    assert [group.parameters for group in tune.moves[0].groups] == ["head", "last:2"]
    assert (tune.inputs, tune.views) == ("activations", 3)


@pytest.mark.parametrize("inputs", ["activations", "images"])
def test_what_lies_below_the_last_stage_stays_bit_for_bit(
    inputs: Literal["activations", "images"], tmp_path: Path
) -> None:
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    work = job(Partial(epochs=2, lr=1e-3), tmp_path, network=network, start_counts=False)
    first, tune = work.plan.phases
    assert isinstance(tune, Phase)
    run_plan(replace(work, plan=TrainPlan((first, replace(tune, inputs=inputs)))))
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert "backbone.layer4.0.downsample.1.weight" in moved
    assert all(name.startswith(("backbone.layer4", "head")) for name in moved)

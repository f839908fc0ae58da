from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.plugins.tuned import job, small_network
from tlcore.errors import PluginError
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.parameters import trainable
from tlcore.training.plan import Phase
from tlcore_tuners.norm_only import NormOnly


def moved_by(network: Network, tmp_path: Path) -> set[str]:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    work = job(NormOnly(epochs=2, lr=0.01), tmp_path, network=network, start_counts=False)
    run_plan(work)
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_norm_layers_and_the_head_move_and_nothing_else_does(name: str, tmp_path: Path) -> None:
    network = small_network(name)
    norms = {
        f"{prefix}.{part}"
        for prefix, module in network.named_modules()
        if "Norm" in type(module).__name__
        for part in ("weight", "bias")
    }
    moved = moved_by(network, tmp_path)
    assert moved <= norms | {"head.weight", "head.bias"}
    assert "head.weight" in moved and moved & norms


def test_a_network_without_norm_layers_is_refused_with_the_choices(tmp_path: Path) -> None:
    network = Network(torch.nn.Conv2d(3, 4, 32), 4, 3)
    phase = NormOnly().plan(job(NormOnly(), tmp_path, network=network).task).phases[1]
    assert isinstance(phase, Phase)
    with pytest.raises(PluginError, match='"norm" of the training plan matches nothing'):
        trainable(network, None, phase)

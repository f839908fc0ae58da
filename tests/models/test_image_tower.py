"""What tlcore asks of a network beside its features: its layers, its cost, its latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import group_parameters
from torch import nn

from tests.plugins.tiny_clip import RESNET, TIMM, VIT, configuration
from tlcore.errors import PluginError
from tlcore.features.engines.work import CountWork
from tlcore.models.clip import image_tower, tower_size
from tlcore.models.image_tower import ImageTower
from tlcore.models.latency import measure_latency
from tlcore.training.network import make_network
from tlcore.training.parameters import select
from tlcore.values import Preprocess

PREPROCESS = Preprocess(height=32, width=32, crop_pct=1.0)


def groups(tower: ImageTower, coarse: bool) -> list[set[str]]:
    """Names of parameters by layer, shortened to what tells layers apart."""
    found = group_parameters(tower, tower.group_matcher(coarse=coarse))
    assert sorted(sum(found.values(), [])) == sorted(name for name, _ in tower.named_parameters())
    return [{".".join(name.split(".")[1:4]) for name in found[number]} for number in sorted(found)]


def test_a_vits_layers_are_its_stem_and_its_blocks() -> None:
    found = groups(image_tower(configuration(VIT)), coarse=True)
    assert found == groups(image_tower(configuration(VIT)), coarse=False) and len(found) == 4
    assert "positional_embedding" in found[0]
    assert found[1] == {"transformer.resblocks.0"}
    assert found[3] == {"transformer.resblocks.2", "ln_post.weight", "ln_post.bias", "proj"}


def test_a_resnets_stages_are_its_four_and_its_layers_the_blocks() -> None:
    tower = image_tower(configuration(RESNET))
    coarse, fine = groups(tower, True), groups(tower, False)
    assert len(coarse) == 5 and len(fine) == 6
    assert all(any(name.startswith(f"layer{number}") for name in coarse[number]) for number in range(1, 5))
    assert any(name.startswith("attnpool") for name in coarse[4])


def test_a_tower_of_timm_is_parted_as_timm_parts_it() -> None:
    tower = image_tower(configuration(TIMM))
    trunk: Any = tower.visual.trunk
    theirs = group_parameters(trunk, trunk.group_matcher(coarse=True))
    ours = group_parameters(tower, tower.group_matcher(coarse=True))
    assert len(ours) == len(theirs) > 2
    for number in sorted(theirs):
        extra = set(ours[number]) - {f"visual.trunk.{name}" for name in theirs[number]}
        assert extra == ({"visual.head.proj.weight"} if number == max(theirs) else set())


def test_the_last_stage_of_a_tower_can_be_named_in_a_plan() -> None:
    network = make_network(image_tower(configuration(VIT)), 3, preprocess=PREPROCESS)
    names = select(network, None, "last:1")
    assert "backbone.visual.proj" in names
    assert all("resblocks.2" in name or "proj" in name or "ln_post" in name for name in names)


def test_a_tower_of_unknown_layers_says_so() -> None:
    with pytest.raises(PluginError, match="does not say what its layers are"):
        ImageTower(nn.Linear(3, 4), 4).group_matcher()


def test_cost_counts_products_of_the_tower_and_no_text() -> None:
    size = tower_size(configuration(VIT), PREPROCESS)
    tokens, width = 17, 32
    block = tokens * 12 * width * width + 2 * tokens * tokens * width
    products = 16 * 3 * 64 * width + 3 * block + width * 16
    assert size.gmacs == pytest.approx(products / 1e9)
    assert size.params == sum(value.numel() for value in image_tower(configuration(VIT)).parameters())


def test_work_counts_torchs_fused_attention() -> None:
    tower = image_tower(configuration(VIT))
    with torch.no_grad(), CountWork() as counted:
        tower(torch.rand(2, 3, 32, 32))
    work, size = counted.per_image(2), tower_size(configuration(VIT), PREPROCESS)
    assert work.gmacs == pytest.approx(size.gmacs)
    assert work.attention_matrix == 4 * 17 * 17


@pytest.mark.slow
def test_its_latency_can_be_measured(tmp_path: Path) -> None:
    assert measure_latency(image_tower(configuration(VIT)), PREPROCESS, threads=1).milliseconds > 0

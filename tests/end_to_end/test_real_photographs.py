"""The main job on real photographs with real ImageNet weights; skipped where they are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Command

pytestmark = [pytest.mark.slow, pytest.mark.shared]


def test_a_linear_probe_on_a_frozen_network_tells_ants_from_bees(
    command: Callable[..., Command], shared_data: Path
) -> None:
    done = command().json(
        "run", "--data", str(shared_data / "hymenoptera"), "--models", f"local:{shared_data / 'weights'}", "--tuner",
        "linear-probe", "--scratch", "linear-probe", "--trial", "none", "--replicates", "0", "--max-images", "60",
    )  # fmt: skip
    assert done["metrics"]["accuracy"] >= 0.92
    assert done["parity"]["passed"] and done["parity"]["images"] == 256
    taking_part = [row["candidate"] for row in done["ranking"] if row["skipped"] is None]
    assert len(taking_part) == 6
    skipped = {row["candidate"]: row["skipped"] for row in done["ranking"] if row["skipped"] is not None}
    assert (
        len(skipped) == 6
        and "audio" in skipped["mobilenetv1_100.yamnet"]
        and "plugin" in skipped["mobilenetv1_050"]
    )


def test_a_strangers_model_source_brings_the_networks_that_timm_has_no_name_for(
    command: Callable[..., Command], shared_data: Path, example_plugin: Path
) -> None:
    ranking = command(PYTHONPATH=str(example_plugin)).json(
        "rank", "--data", str(shared_data / "hymenoptera"), "--models", f"narrow-mobilenets:{shared_data / 'weights'}",
        "--replicates", "0", "--max-images", "60",
    )["ranking"]  # fmt: skip
    assert sum(row["rank"] is not None for row in ranking) == 5

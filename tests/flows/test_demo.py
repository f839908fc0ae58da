"""The demo's two runs; that they work as a whole is seen by `.ci/run`."""

from __future__ import annotations

from pathlib import Path

from tlcore.registry import Registry
from tlcore_flows import demo, strategies


def test_the_first_run_is_ten_labelled_scans_a_class_and_shows_whether_the_ranking_was_right(
    tmp_path: Path,
) -> None:
    config = demo.transfer_config(tmp_path)
    assert config.data.source.name == "digits"
    assert config.data.source.options["per_class"] == 10
    assert config.data.target is None
    assert config.selection.verify


def test_the_second_run_adapts_by_mcc_and_shot(tmp_path: Path) -> None:
    config = demo.adaptation_config(tmp_path)
    assert config.data.target is not None
    assert [choice.name for choice in config.adapt.strategies] == ["mcc", "shot"]


def test_every_strategy_of_the_demo_is_installed_with_these_options(tmp_path: Path) -> None:
    registry = Registry.discover()
    for name in ("zoo", "rendered"):
        (tmp_path / name).mkdir()
    for config in (demo.transfer_config(tmp_path), demo.adaptation_config(tmp_path)):
        strategies.check(config, registry)

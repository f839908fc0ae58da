"""A ranking is shown again exactly as long as nothing that it hangs on has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import RunConfig, parse_config
from tlcore.registry import Registry
from tlcore.values import Ranked, Ranking
from tlcore_flows import recall


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    write_images(tmp_path / "photos", 3, seed=0)
    write_zoo(tmp_path / "zoo", ("test_resnet",))
    return {"data": {"source": str(tmp_path / "photos")}, "models": [f"local:{tmp_path / 'zoo'}"]}


def address(document: dict[str, Any]) -> str | None:
    config: RunConfig = parse_config(document)
    return recall.address(config, Registry.discover())


def _add_image(root: Path) -> None:
    (root / "photos" / "ant" / "more.png").write_bytes(b"x")


def _grow_image(root: Path) -> None:
    path = root / "photos" / "ant" / "ant_00.png"
    path.write_bytes(path.read_bytes() + b"x")


def _same_size_image(root: Path) -> None:
    path = root / "photos" / "bee" / "bee_00.png"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _replace_weights(root: Path) -> None:
    path = root / "zoo" / "test_resnet.safetensors"
    twin = path.with_suffix(".twin")
    twin.write_bytes(path.read_bytes())
    twin.replace(path)


def _remove_index(root: Path) -> None:
    (root / "zoo" / "index.json").unlink()


@pytest.mark.parametrize(
    "change", [_add_image, _grow_image, _same_size_image, _replace_weights, _remove_index]
)
def test_a_changed_file_changes_the_address(
    tmp_path: Path, document: dict[str, Any], change: Callable[[Path], None]
) -> None:
    before = address(document)
    assert before is not None and address(document) == before
    change(tmp_path)
    assert address(document) != before


@pytest.mark.parametrize(
    "setting",
    [
        {"seed": 1},
        {"selection": {"scorers": ["logme"]}},
        {"selection": {"scorers": [{"name": "logme", "centred": False}]}},
        {"selection": {"shortlist": 2}},
        {"selection": {"max_images": 100}},
        {"data": {"validation": 0.3}},
    ],
)
def test_another_setting_changes_the_address(document: dict[str, Any], setting: dict[str, Any]) -> None:
    before = address(document)
    other = {**document, **setting, "data": {**document["data"], **setting.get("data", {})}}
    assert address(other) not in {before, None}


def test_what_may_change_unseen_has_no_address(document: dict[str, Any]) -> None:
    hub = {"name": "timm", "options": {"spec": "resnet18", "allow_download": True}}
    assert address({**document, "models": [*document["models"], hub]}) is None
    assert address({**document, "selection": {"max_latency_ms": 5}}) is None


def test_a_result_table_counts(tmp_path: Path, document: dict[str, Any]) -> None:
    table = tmp_path / "results.csv"
    table.write_text("model,top1\nresnet18,70\n", encoding="utf-8")
    named = {**document, "selection": {"results": str(table)}}
    before = address(named)
    table.write_text("model,top1\nresnet18,71.5\n", encoding="utf-8")
    assert before != address(named)


def test_what_was_kept_is_found_and_a_damaged_entry_is_not(tmp_path: Path) -> None:
    ranking = Ranking(
        entries=(Ranked(candidate="a", rank=1, scores={"logme": 0.1 + 0.2}),), scorers=("logme",), images=9
    )
    assert recall.find(tmp_path, "k") is None
    recall.keep(tmp_path, "k", ranking)
    assert recall.find(tmp_path, "k") == ranking
    next((tmp_path / "rankings").iterdir()).write_text("{", encoding="utf-8")
    assert recall.find(tmp_path, "k") is None
    recall.keep(tmp_path, None, ranking)
    assert recall.find(tmp_path, None) is None

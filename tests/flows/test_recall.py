"""A ranking is shown again exactly as long as nothing that it hangs on has changed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


@functools.cache
def registry() -> Registry:
    """Examining what is installed takes longer than a test, and no test here changes it."""
    return Registry.discover()


def address(document: dict[str, Any], root: Path = Path("/nowhere/store")) -> str | None:
    config: RunConfig = parse_config(document)
    return recall.address(config, registry(), root)


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


@pytest.fixture
def listed(tmp_path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """The same images by a table beside them and the run store."""
    rows = [
        f"{path.relative_to(tmp_path)},{path.parent.name}" for path in (tmp_path / "photos").rglob("*.png")
    ]
    (tmp_path / "list.csv").write_text("\n".join(["uri,label", *sorted(rows)]), encoding="utf-8")
    return {**document, "data": {"source": str(tmp_path / "list.csv")}}


def _table(root: Path) -> None:
    (root / "list.csv").write_text((root / "list.csv").read_text().replace("ant\n", "bee\n", 1))


@pytest.mark.parametrize("change", [_grow_image, _same_size_image, _table])
def test_a_manifest_hangs_on_its_table_and_the_images_that_it_lists(
    tmp_path: Path, listed: dict[str, Any], change: Callable[[Path], None]
) -> None:
    before = address(listed)
    (tmp_path / ".tlcore").mkdir()
    (tmp_path / ".tlcore" / "result").write_bytes(b"x")
    _add_image(tmp_path)  # the table does not list it
    assert before is not None and address(listed) == before
    change(tmp_path)
    assert address(listed) != before


def test_a_manifest_that_cannot_be_read_has_no_address(tmp_path: Path, listed: dict[str, Any]) -> None:
    (tmp_path / "list.csv").write_text("picture\nx.png\n")
    assert address(listed) is None


def test_a_run_store_among_the_images_or_the_weights_does_not_count(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    document["models"] = [f"local:{tmp_path / 'zoo' / 'test_resnet.safetensors'}"]
    for root in (tmp_path / "photos" / "kept", tmp_path / "zoo" / ".tlcore"):
        root.mkdir()
        before = address(document, root)
        (root / "result").write_bytes(b"x")
        assert before is not None and address(document, root) == before
        assert address(document) != before


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("sound", [True, False])
def test_the_flow_keeps_a_ranking_unless_a_candidate_fell_out_on_the_way(
    tmp_path: Path, document: dict[str, Any], store: Path, sound: bool
) -> None:
    from safetensors.numpy import load_file, save_file

    from tlcore_flows.rank import rank

    second = write_zoo(tmp_path / "second", ("test_efficientnet",)) / "test_efficientnet.safetensors"
    if not sound:
        weights = load_file(second)
        save_file(
            {name: np.full_like(value, np.nan) for name, value in weights.items() if value.ndim}, second
        )
    document |= {
        "data": {"source": str(write_images(tmp_path / "many", 8, seed=0))},
        "models": [*document["models"], f"local:{second}"], "selection": {"replicates": 0}, "threads": 1,
    }  # fmt: skip
    ranking = Ranking.model_validate(rank(parse_config(document), store=str(store)))
    assert [entry.skipped is None for entry in ranking.entries] == [True, sound]
    assert recall.find(store, address(document, store)) == (ranking if sound else None)


def test_a_result_table_counts(tmp_path: Path, document: dict[str, Any]) -> None:
    table = tmp_path / "results.csv"
    table.write_text("model,top1\nresnet18,70\n", encoding="utf-8")
    named = {**document, "selection": {"results": str(table)}}
    before = address(named)
    table.write_text("model,top1\nresnet18,71.5\n", encoding="utf-8")
    assert before != address(named)


def test_another_processor_or_compiler_changes_the_address(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines are chosen by what the machine has; a folder that machines mount is asked by each of them."""
    before = address(document)
    read, is_file = Path.read_text, Path.is_file
    flags = "flags : fpu sse2 avx512_bf16" if "avx512_bf16" not in _flags() else "flags : fpu sse2"
    monkeypatch.setattr(Path, "is_file", lambda self: self == CPUINFO or is_file(self))
    monkeypatch.setattr(
        Path, "read_text", lambda self, **how: flags if self == CPUINFO else read(self, **how)
    )
    other = address(document)
    monkeypatch.setattr(recall.shutil, "which", lambda name: None)
    assert len({before, other, address(document), address({**document, "device": "cuda"})}) == 4


CPUINFO = Path("/proc/cpuinfo")


def _flags() -> str:
    return CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""


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

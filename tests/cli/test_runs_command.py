"""`tlcore runs` and what a run prints at its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from tests.report.conftest import sample
from tlcore.config import RunConfig, parse_config
from tlcore.errors import GateError, UserError
from tlcore.report.document import run_document
from tlcore.stages.runs import open_run
from tlcore.store import Store
from tlcore.values import RunRecord
from tlcore_flows import cli_tables


def config(name: str) -> RunConfig:
    return parse_config({"name": name, "data": {"source": "here"}, "models": ["local:zoo"]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def record(store: Store, tmp_path: Path) -> RunRecord:
    """A complete run in the store."""
    (tmp_path / "scans").mkdir()
    with open_run(store, config("the [red]run[/red]")) as opened:
        made = sample(
            tmp_path / "scans",
            run_id=opened.run_id,
            name="the [red]run[/red]",
            onnx=str(opened.folder / "model.onnx"),
            card=str(opened.folder / "card.html"),
        )
        (tmp_path / "card.html").write_text("card.html")
        graph = helper.make_model(helper.make_graph([], "empty", [], []))
        helper.set_model_props(graph, {"tlcore.run_id": "an earlier run"})
        content = graph.SerializeToString()
        (tmp_path / "model.onnx").write_bytes(content)
        exported = made.exported.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
        made = made.model_copy(update={"exported": opened.promote(tmp_path / "model.onnx", exported)})
        return opened.complete(made, card=tmp_path / "card.html")


def test_the_model_of_a_run_is_a_copy_with_its_own_id(record: RunRecord, tmp_path: Path) -> None:
    (stamped,) = onnx.load(record.onnx).metadata_props
    assert stamped.value == record.run_id
    assert hashlib.sha256(Path(record.onnx).read_bytes()).hexdigest() == record.exported.sha256
    assert onnx.load(tmp_path / "model.onnx").metadata_props[0].value == "an earlier run"


def test_a_stored_model_that_was_changed_after_its_proof_is_not_promoted(
    record: RunRecord, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"something else")
    with (
        pytest.raises(GateError, match="changed after it was proven"),
        open_run(store, config("again")) as opened,
    ):
        opened.promote(tmp_path / "model.onnx", record.exported)


def test_runs_are_listed_with_their_state(
    record: RunRecord, store: Store, tlcore: Callable[..., Any]
) -> None:
    with pytest.raises(UserError), open_run(store, config("broken")):
        raise UserError("no images")
    with open_run(store, config("going on")):
        text = tlcore("runs").out
        listed = json.loads(tlcore("runs", "--json").out)["runs"]
    states = {run["name"]: run["state"] for run in listed}
    assert states == {"the [red]run[/red]": "completed", "broken": "failed", "going on": "running"}
    for word in ("the [red]run[/red]", "completed", "no images", record.chosen.candidate):
        assert word in text


def test_a_run_whose_process_is_gone_was_interrupted(store: Store, tlcore: Callable[..., Any]) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(store, config("cut short")):
        raise KeyboardInterrupt
    assert "interrupted" in tlcore("runs").out


def test_a_run_is_shown_by_the_beginning_of_its_id(record: RunRecord, tlcore: Callable[..., Any]) -> None:
    outcome = tlcore("runs", "show", record.run_id[:17])
    assert outcome.code == 0
    for word in (record.chosen.candidate, record.onnx, record.card, "parity", "majority"):
        assert word in outcome.out
    for entry in record.ranking.entries:
        assert entry.candidate in outcome.out


def test_the_json_of_a_run_is_the_document_of_the_run(record: RunRecord, tlcore: Callable[..., Any]) -> None:
    shown = json.loads(tlcore("runs", "show", "last", "--json").out)
    assert shown == json.loads(json.dumps(run_document(record)))


def test_open_prints_the_card(record: RunRecord, tlcore: Callable[..., Any]) -> None:
    assert tlcore("runs", "open").out == f"{record.card}\n"


def test_a_run_nobody_knows_is_refused(record: RunRecord, tlcore: Callable[..., Any]) -> None:
    outcome = tlcore("runs", "show", "1999")
    assert outcome.code == 2
    assert 'no run named "1999"' in outcome.err
    assert record.run_id in outcome.err


def test_the_summary_says_what_a_strategy_kept_and_its_options(
    record: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = record.chosen.model_copy(update={"strategy": "lp-ft", "options": {"lr": 0.01}})
    cli_tables.print_run(record.model_copy(update={"chosen": chosen}))
    assert "kept its start" not in capsys.readouterr().out
    kept = chosen.model_copy(update={"kept_start": "the linear probe"})
    cli_tables.print_run(record.model_copy(update={"chosen": kept}))
    out = capsys.readouterr().out
    assert f"chosen: {chosen.candidate}, lp-ft, which kept its start: the linear probe" in out
    assert "options: lr = 0.01" in out


def test_the_summary_says_what_was_cached(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    cli_tables.print_run(record.model_copy(update={"cached": tuple(record.seconds)}))
    assert "all cached" in capsys.readouterr().out
    cli_tables.print_run(record.model_copy(update={"cached": ()}))
    assert "cached" not in capsys.readouterr().out

"""The trial between shortlisted candidates as Prefect runs it, on tiny images and networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prefect import flow

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import RunConfig, parse_config
from tlcore.report.document import RUN_SCHEMA, run_document
from tlcore.selection.halving import ACHIEVED
from tlcore.store import Store
from tlcore.values import Halving, RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a zoo in which `twin` has the weights of `test_resnet`: no score can tell the two apart."""
    folder = tmp_path_factory.mktemp("trial")
    write_images(folder / "photos", 10, seed=0)
    zoo = write_zoo(folder / "zoo")
    index = json.loads((zoo / "index.json").read_text())
    shutil.copy(zoo / "test_resnet.safetensors", zoo / "twin.safetensors")
    index["twin"] = {**index["test_resnet"], "file": "twin.safetensors"}
    (zoo / "index.json").write_text(json.dumps(index))
    return folder


def config(place: Path, **selection: Any) -> RunConfig:
    return parse_config(
        {
            "name": "trial", "data": {"source": str(place / "photos")}, "models": [f"local:{place / 'zoo'}"], "threads": 1,
            "selection": {"scorers": ["logme"], "replicates": 0, **selection},
            "finetune": {"try": ["linear-probe", {"name": "lp-ft", "epochs": 3, "batch_size": 8}]},
            "evaluation": {"replicates": 100, "scratch": {"name": "full", "epochs": 1}},
        }
    )  # fmt: skip


def hold(
    settings: RunConfig, root: Path, names: tuple[str, ...], spoil: str = ""
) -> tuple[Halving, list[str], set[str]]:
    """A trial between `names`; warnings, and the stages of which something was computed.

    spoil: a candidate whose weights file vanishes before the trial, so that its trainings fail.
    """
    from tlcore_flows.rank import rank_models
    from tlcore_flows.transfer import _short_training
    from tlcore_flows.trial import hold_trial
    from tlcore_flows.wiring import Wiring

    @flow
    def trial() -> None:
        base = rank_models(run)
        if spoil:
            broken = base.candidates[spoil].model_copy(update={"classes": 7, "weights_sha256": "0" * 64})
            base.candidates[spoil] = broken
        run.computed.clear()
        held.append(hold_trial(run, base, names, _short_training(run, base)))

    held: list[Halving] = []
    run = Wiring(settings, Store.open(root))
    trial()
    return held[0], run.warnings, run.computed


ALL = ("test_efficientnet", "test_resnet", "twin")


def test_rungs_are_trainings_in_the_store_and_a_second_run_decides_the_same(place: Path, store: Path) -> None:
    first, warnings, computed = hold(config(place), store, ALL)
    assert [(r.candidate, r.rung, r.epochs) for r in first.rungs[:3]] == [(name, 1, 1) for name in ALL]
    assert [(r.rung, r.epochs) for r in first.rungs[3:]] == [(2, 2), (2, 2)]
    assert first.strategy == "lp-ft" and first.reason == "one candidate was left" and warnings == []
    assert all(r.validation is not None and r.loss is not None and r.seconds > 0 for r in first.rungs)
    assert "train" in computed
    second, _, computed = hold(config(place), store, ALL)
    assert second == first and computed == set()


def test_a_budget_that_is_too_small_trains_nothing_and_says_so(place: Path, store: Path) -> None:
    trial, warnings, computed = hold(config(place, trial_seconds=1e-6), store, ALL)
    assert (trial.winner, trial.rungs, computed) == (ALL[0], (), set())
    (warning,) = warnings
    assert all(name in warning for name in ALL) and "--trial-seconds" in warning


def test_a_run_holds_a_trial_only_where_scores_tie_and_trains_the_winner_alone(
    place: Path, store: Path
) -> None:
    from tlcore_flows.transfer import transfer

    record = RunRecord.model_validate(transfer(config(place), store=str(store)))
    twins = {"test_resnet", "twin"}
    if set(record.ranking.shortlist) != twins:  # the third network scored higher: it needs no trial
        assert record.ranking.best == "test_efficientnet" and record.halving is None
        leave_out = json.loads((place / "zoo" / "index.json").read_text())
        del leave_out["test_efficientnet"]
        (place / "zoo" / "index.json").write_text(json.dumps(leave_out))
        record = RunRecord.model_validate(transfer(config(place), store=str(store)))
    assert set(record.ranking.shortlist) == twins
    trial = record.halving
    assert trial is not None and {r.candidate for r in trial.rungs} == twins
    # Equal weights train alike: what decides is the place on the shortlist.
    assert trial.winner == record.ranking.shortlist[0] == record.chosen.candidate
    assert {t.candidate for t in record.trials} == {trial.winner}
    assert [t.strategy for t in record.trials] == ["linear-probe", "lp-ft"]
    assert record.ranking.achieved_measure == ACHIEVED
    achieved = {e.candidate: e.achieved for e in record.ranking.entries if e.achieved is not None}
    assert achieved == {r.candidate: r.validation for r in trial.rungs}
    document = run_document(record)
    jsonschema.validate(document, RUN_SCHEMA)
    assert document["trial"]["winner"] == trial.winner
    card = Path(record.card).read_text(encoding="utf-8")
    assert "Trial of the shortlist" in card and "goes on" in card
    without = RunRecord.model_validate(transfer(config(place, trial="none"), store=str(store)))
    assert without.halving is None and {t.candidate for t in without.trials} == twins

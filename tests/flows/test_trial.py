"""The trial between shortlisted candidates as Prefect runs it, on tiny images and networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import parse_config
from tlcore.evaluation.metrics import wilson
from tlcore.report.document import RUN_SCHEMA, run_document
from tlcore.selection.halving import achieved_in_trial
from tlcore.values import RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

NAMES = {"test_resnet", "second", "third"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a zoo of one network under three names: no score can tell them apart."""
    folder = tmp_path_factory.mktemp("trial")
    write_images(folder / "photos", 10, seed=0)
    zoo = write_zoo(folder / "zoo", ("test_resnet",))
    index = json.loads((zoo / "index.json").read_text())
    for name in ("second", "third"):
        shutil.copy(zoo / "test_resnet.safetensors", zoo / f"{name}.safetensors")
        index[name] = {**index["test_resnet"], "file": f"{name}.safetensors"}
    (zoo / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Path:
    """One for all: what one test had computed the next one finds."""
    return place / "store"


def run(place: Path, store: Path, **selection: Any) -> RunRecord:
    from tlcore_flows.transfer import transfer

    config = parse_config(
        {
            "name": "trial", "data": {"source": str(place / "photos")}, "models": [f"local:{place / 'zoo'}"], "threads": 1,
            "selection": {"scorers": ["logme"], "replicates": 0, "trial_seconds": 600, **selection},
            "finetune": {"try": ["linear-probe", {"name": "lp-ft", "epochs": 3, "batch_size": 8}]},
            "evaluation": {"replicates": 100, "scratch": {"name": "full", "epochs": 1}},
        }
    )  # fmt: skip
    return RunRecord.model_validate(transfer(config, store=str(store)))


def test_rungs_are_trainings_in_the_store_and_the_winner_alone_is_trained_in_full(
    place: Path, store: Path
) -> None:
    record = run(place, store)
    trial, shortlist = record.halving, record.ranking.shortlist
    assert trial is not None and set(shortlist) == NAMES
    assert [(r.candidate, r.rung, r.epochs) for r in trial.rungs[:3]] == [(name, 1, 1) for name in shortlist]
    # Equal weights train alike: what decides is the place on the shortlist.
    assert [(r.candidate, r.rung, r.epochs) for r in trial.rungs[3:]] == [(n, 2, 2) for n in shortlist[:2]]
    assert all(r.validation is not None and r.loss is not None and r.seconds > 0 for r in trial.rungs)
    for rung in trial.rungs:
        assert rung.images and rung.validation is not None
        assert rung.validation_ci == wilson(rung.validation, rung.images)
    assert trial.winner == shortlist[0] == record.chosen.candidate
    assert (trial.strategy, trial.reason, record.warnings) == ("lp-ft", "one candidate was left", ())
    assert [(t.candidate, t.strategy) for t in record.trials] == [
        (trial.winner, "linear-probe"),
        (trial.winner, "lp-ft"),
    ]
    achieved = {e.candidate: e.achieved for e in record.ranking.entries}
    assert achieved == {r.candidate: r.validation for r in trial.rungs}
    assert record.ranking.achieved_measure == achieved_in_trial("accuracy")
    jsonschema.validate(run_document(record), RUN_SCHEMA)
    assert "Trial of the shortlist" in Path(record.card).read_text(encoding="utf-8")
    again = run(place, store)
    assert again.halving == trial  # seconds included: they are those of the computation
    assert "train" in again.cached


def test_a_budget_that_is_too_small_trains_nothing_and_says_so(place: Path, store: Path) -> None:
    record = run(place, store, trial_seconds=1e-6)
    assert record.halving is not None and record.halving.rungs == ()
    assert record.chosen.candidate == record.ranking.shortlist[0]
    assert all(entry.achieved is None for entry in record.ranking.entries)
    (warning,) = [text for text in record.warnings if "trial" in text]
    assert all(name in warning for name in NAMES) and "--trial-seconds" in warning


def test_without_a_trial_all_of_the_shortlist_are_trained_in_full(place: Path, store: Path) -> None:
    record = run(place, store, trial="none", shortlist=2)
    assert record.halving is None
    assert {t.candidate for t in record.trials} == set(record.ranking.shortlist)
    assert len(record.ranking.shortlist) == 2 and len(record.trials) == 4

"""Searches, strategies that choose another, and teachers, as Prefect runs them on tiny images and networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import validate

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import parse_config
from tlcore.report.document import RUN_SCHEMA, run_document
from tlcore.values import RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

SHORT = {"epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and two networks of which the efficientnet is the larger one; no test changes them."""
    folder = tmp_path_factory.mktemp("training")
    write_images(folder / "photos", 10, seed=0)
    write_zoo(folder / "zoo", ("test_resnet", "test_efficientnet"))
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Path:
    """One for all: what one test had computed the next one finds."""
    return place / "store"


def run(place: Path, store: Path, **sections: Any) -> RunRecord:
    from tlcore_flows.transfer import transfer

    config = parse_config(
        {
            "name": "training", "data": {"source": str(place / "photos")}, "models": [f"local:{place / 'zoo'}"], "threads": 1,
            "evaluation": {"replicates": 100, "scratch": {"name": "full", "epochs": 1}},
            **sections,
            "selection": {
                "scorers": ["logme"], "replicates": 0, "trial": "none", "shortlist": 1, **sections.get("selection", {}),
            },
        }
    )  # fmt: skip
    return RunRecord.model_validate(transfer(config, store=str(store)))


def sizes(place: Path) -> dict[str, int]:
    import timm

    names = json.loads((place / "zoo" / "index.json").read_text())
    return {
        name: sum(value.numel() for value in timm.create_model(name, num_classes=0).parameters())
        for name in names
    }


def test_a_search_is_a_stage_of_the_run_and_the_card_tells_of_it(place: Path, store: Path) -> None:
    finetune = {
        "try": ["linear-probe", {"name": "lp-ft", **SHORT}], "soup": True, "validation": "held-out",
        "search": {"trials": 2, "fields": ["lr"], "bounds": {"lr": [1e-5, 1e-3]}},
    }  # fmt: skip
    record = run(place, store, finetune=finetune)
    (search,) = record.searches  # linear-probe has no option of this name
    assert search.strategy == "lp-ft" and list(search.space) == ["lr"] and len(search.trials) == 2
    assert search.soup is not None and {"search", "train"} <= set(record.seconds)
    assert [trial.strategy for trial in record.trials] == ["linear-probe", "lp-ft"]
    validate(run_document(record), RUN_SCHEMA)
    assert 'id="search"' in Path(record.card).read_text(encoding="utf-8")
    again = run(place, store, finetune=finetune)
    assert again.searches == record.searches and "search" in again.cached


def test_auto_is_resolved_before_training_and_what_it_chose_is_told(place: Path, store: Path) -> None:
    record = run(place, store, finetune={"try": ["auto", "linear-probe"]})
    (decision,) = record.decisions
    chosen = record.trials[0].strategy
    assert (
        chosen != "auto"
        and decision.startswith(f"auto → {chosen} on ")
        and any(f"({way} 2 images a class; " in decision for way in ("up to", "above"))
    )
    assert len(record.trials) == (1 if chosen == "linear-probe" else 2)
    assert decision in Path(record.card).read_text(encoding="utf-8")
    for trial in record.trials:
        assert trial.test_ci is not None and trial.test_ci.low <= trial.test <= trial.test_ci.high


def test_a_candidate_over_the_limits_teaches_the_one_within_them(place: Path, store: Path) -> None:
    known = sizes(place)
    small, large = sorted(known, key=known.__getitem__)
    limit = (known[small] + known[large]) / 2e6
    record = run(
        place, store, selection={"max_params": limit},
        finetune={"try": ["linear-probe", {"name": "distill", **SHORT}]},
    )  # fmt: skip
    (left_out,) = [entry for entry in record.ranking.entries if entry.rank is None]
    assert left_out.candidate == large and str(left_out.skipped).startswith("teaches only: ")
    assert any("validated on images set aside" in one and "(distill)" in one for one in record.decisions)
    assert record.chosen.candidate == small
    trained = {(trial.candidate, trial.strategy) for trial in record.trials}
    assert trained == {(small, "linear-probe"), (large, "linear-probe"), (small, "distill")}
    assert any(text.startswith(f"distill: {large} (linear-probe") for text in record.decisions)


def test_without_a_second_candidate_nobody_teaches_and_the_run_says_so(
    place: Path, store: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    only = tmp_path / "one"
    write_zoo(only, ("test_resnet",))
    record = run(
        place,
        store,
        models=[f"local:{only}"],
        finetune={"try": ["linear-probe", {"name": "distill", **SHORT}]},
    )
    (warning,) = [text for text in record.warnings if "distill" in text]
    assert "no other candidate was trained that could teach test_resnet" in warning and "--models" in warning
    assert [trial.strategy for trial in record.trials] == ["linear-probe"]


def test_a_strategy_is_left_out_for_a_candidate_that_lacks_what_it_needs(
    place: Path, store: Path, tmp_path: Path
) -> None:
    zoo = shutil.copytree(place / "zoo", tmp_path / "zoo")
    index = zoo / "index.json"
    entries = json.loads(index.read_text())
    from safetensors.torch import load_file, save_file

    kept = load_file(zoo / "test_resnet.safetensors")
    save_file(
        {k: v.clone() for k, v in kept.items() if not k.startswith("fc.")},
        zoo / "test_resnet.safetensors",
    )
    entries["test_resnet"]["num_classes"] = 0
    index.write_text(json.dumps(entries))
    co_tuning = {"name": "co-tuning", **SHORT}
    record = run(
        place, store, models=[f"local:{zoo}"], selection={"verify": True, "verify_with": co_tuning},
        finetune={"try": ["linear-probe", co_tuning]}, evaluation={"replicates": 100, "scratch": "linear-probe"},
    )  # fmt: skip
    trained = {(one.candidate, one.strategy) for one in record.trials}
    assert ("test_efficientnet", "co-tuning") in trained and ("test_resnet", "co-tuning") not in trained
    assert any(
        "co-tuning was left out for test_resnet: its weights carry no head" in text
        for text in record.warnings
    )


def test_rows_of_one_strategy_say_their_options_and_one_that_kept_its_probe_says_so(
    place: Path, store: Path
) -> None:
    spoilt = {"name": "lp-ft", "epochs": 1, "batch_size": 4, "lr": 0.01, "head_factor": 100.0}
    finetune = {
        "try": ["prototype", {"name": "prototype", "metric": "mahalanobis"}, spoilt],
        "validation": "held-out",
    }
    record = run(place, store, finetune=finetune)
    cosine, mahalanobis, tuned = record.trials
    assert (cosine.options, mahalanobis.options) == ({}, {"metric": "mahalanobis"})
    assert tuned.kept_start == "the linear probe" and cosine.kept_start == ""
    assert {"epochs": 1, "lr": 0.01}.items() <= tuned.options.items() and "smoothing" not in tuned.options
    (made,) = [trial for trial in record.trials if record.chosen.made_by(trial)]
    assert (record.chosen.options, record.chosen.kept_start) == (made.options, made.kept_start)
    validate(run_document(record), RUN_SCHEMA)


def test_the_probe_of_numbers_is_called_ridge(place: Path, store: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(place / "photos", tmp_path / "photos")
    rows = [
        f"{path.relative_to(tmp_path)},{number % 7 + 0.5}"
        for number, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    (tmp_path / "list.csv").write_text("\n".join(["uri,label", *rows]))
    source = {"name": "manifest", "path": str(tmp_path / "list.csv")}
    record = run(place, store, data={"source": source}, finetune={"try": ["ridge"]})
    assert {entry.baseline for entry in record.baselines} == {"mean", "ridge", "scratch"}
    assert "ridge, frozen" in Path(record.card).read_text(encoding="utf-8")

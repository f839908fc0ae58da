"""How a training is validated: by all images in turn where there are few, within its budget, and with what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlcore.errors import UserError
from tlcore.stages.base import Choice, StageJob, job_key
from tlcore.stages.networks import load_out_of_fold, load_predictions
from tlcore.stages.tables import load_table, rows_of
from tlcore.stages.values import CheckedData, Trained
from tlcore.values import Ref

from .conftest import Chain, source, write_images, write_zoo


class Bench:
    def __init__(self, chain: Chain, photos: Path, zoo: Path) -> None:
        self.chain = chain
        self.data = chain.data(photos)
        (self.candidate,) = chain.candidates(write_zoo(zoo, ("test_resnet",)))
        self.pixels = chain.pixels(self.data, self.candidate)

    def train(self, tuner: str, given: dict[str, Any] | None = None, **options: Any) -> tuple[Ref, Trained]:
        ref = self.chain(
            "train", f"{tuner}-{len(self.chain.done)}", inputs={"data": self.data, "pixels": self.pixels},
            options={"candidate": self.candidate.recipe(), "pretrained": True, "validation": "auto", **options},
            strategies={"source": source(self.candidate), "tuner": ("tuner", tuner, given or {})},
        )  # fmt: skip
        return ref, self.chain.store.read(ref, Trained)


@pytest.fixture
def bench(chain: Chain, tmp_path: Path) -> Bench:
    return Bench(chain, write_images(tmp_path / "photos", 10, seed=0), tmp_path / "zoo")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tuner", "given"), [("ridge", {}), ("lp-ft", {"epochs": 2, "lr": 1e-3, "wise": True})]
)
def test_few_images_validate_in_turn(bench: Bench, tuner: str, given: dict[str, Any]) -> None:
    ref, trained = bench.train(tuner, given)
    store = bench.chain.store
    dataset = load_table(store.folder(bench.data), store.read(bench.data, CheckedData))
    rows = np.sort(np.concatenate([rows_of(dataset, part, labelled=True) for part in ("train", "val")]))
    out_of_fold = load_out_of_fold(store.folder(ref))
    assert out_of_fold is not None and np.array_equal(out_of_fold[0], rows)
    assert trained.validated_on == f"5-fold cross-validation, {len(rows)} images"
    right = out_of_fold[1].argmax(1) == dataset.targets()[rows]
    assert trained.validation == pytest.approx(right.mean())
    assert trained.validation_ci is not None and trained.validation_ci.low <= trained.validation
    tested = load_predictions(store.folder(ref), rows_of(dataset, "test", labelled=True))
    assert tested.shape[1] == 3


def test_a_validation_split_that_was_given_decides(chain: Chain, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number, part in enumerate(("train", "val", "test")):
        write_images(root / part, 6, seed=number)
    _, trained = Bench(chain, root, tmp_path / "zoo").train("ridge")
    assert trained.validated_on == "held-out, 18 images"


def test_images_of_which_no_two_are_alike_cannot_validate_in_turn(chain: Chain, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number, (part, count) in enumerate((("train", 1), ("test", 3))):
        write_images(root / part, count, seed=number)
    bench = Bench(chain, root, tmp_path / "zoo")
    _, trained = bench.train("ridge")
    assert trained.validated_on == "the training images themselves, 3 images" and trained.calibration is None
    with pytest.raises(UserError, match="cannot be parted for cross-validation"):
        bench.train("ridge", validation="cross-validation")


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["full", "lp-ft", "gradual-unfreezing", "mlp-head", "partial"])
def test_a_budget_that_is_spent_at_once_leaves_something_to_keep(bench: Bench, tuner: str) -> None:
    _, trained = bench.train(tuner, budget=0.01)
    assert 0 <= trained.validation <= 1
    assert any("folds: " in note and "budget" in note for note in trained.checkpoint.notes)


@pytest.mark.slow
def test_a_budget_holds_for_all_folds_together(bench: Bench) -> None:
    _, trained = bench.train("full", {"epochs": 1000}, budget=4.0)
    assert len(trained.checkpoint.history) < 1000
    assert any("5 of 5 folds" in note and "budget" in note for note in trained.checkpoint.notes)


def test_processes_that_share_a_training_are_part_of_its_address(bench: Bench) -> None:
    job = StageJob(
        stage="train", options={"candidate": bench.candidate.recipe()},
        strategies={"tuner": Choice(kind="tuner", name="full")},
    )  # fmt: skip
    registry = bench.chain.registry
    shared = job.model_copy(update={"processes": 2})
    assert job_key(shared, registry) != job_key(job, registry)
    elsewhere = [one.model_copy(update={"stage": "embed"}) for one in (job, shared)]
    assert job_key(elsewhere[0], registry) == job_key(elsewhere[1], registry)

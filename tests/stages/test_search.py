"""Searches over options as a stage: trials, pruning, a kill, a soup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.stages.conftest import Chain, source, write_images, write_zoo
from tlcore.errors import UserError
from tlcore.stages import search as stage
from tlcore.stages.networks import load_predictions
from tlcore.stages.values import Trained
from tlcore.values import Candidate, Ref

LP_FT = {"epochs": 2, "batch_size": 8}


class Bench:
    """One data set, one candidate, and the stages that train it."""

    def __init__(self, chain: Chain, tmp_path: Path) -> None:
        self.chain = chain
        self.data = chain.data(write_images(tmp_path / "photos", 14, seed=0))
        self.candidate: Candidate = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))[0]
        self.pixels = chain.pixels(self.data, self.candidate)

    def __call__(
        self, name: str, tuner: str = "lp-ft", given: dict[str, Any] | None = None, **options: Any
    ) -> Ref:
        return self.chain(
            name, f"{self.candidate.name}-{tuner}", inputs={"data": self.data, "pixels": self.pixels},
            options={"candidate": self.candidate.recipe(), "pretrained": True, **options},
            strategies={"source": source(self.candidate), "tuner": ("tuner", tuner, given or LP_FT)},
        )  # fmt: skip

    def read(self, ref: Ref) -> Trained:
        return self.chain.store.read(ref, Trained)

    def weights(self, ref: Ref) -> dict[str, np.ndarray]:
        return load_file(self.chain.store.folder(ref) / "weights.safetensors")


@pytest.fixture
def bench(chain: Chain, tmp_path: Path) -> Bench:
    return Bench(chain, tmp_path)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_result_is_the_training_of_the_best_trial(bench: Bench) -> None:
    ref = bench("search", trials=3, fields=["lr", "smoothing"])
    trained = bench.read(ref)
    found = trained.search
    assert found is not None and [trial.number for trial in found.trials] == [0, 1, 2]
    assert found.trials[0].options == {"lr": 1e-4, "smoothing": 0.0}
    assert list(found.space) == ["lr", "smoothing"] and found.reason == "3 trials were asked for"
    best = found.trials[found.best]
    assert trained.validation == best.validation == max(t.validation or 0 for t in found.trials)
    alone = bench("train", given={**LP_FT, **best.options})
    assert same(bench.weights(ref), bench.weights(alone))
    lines = zip(trained.checkpoint.history, bench.read(alone).checkpoint.history, strict=True)
    assert all(
        (a.phase, a.epoch, a.losses, a.measures) == (b.phase, b.epoch, b.losses, b.measures) for a, b in lines
    )
    rows = np.load(bench.chain.store.folder(ref) / "predictions.npz")["rows"]
    np.testing.assert_array_equal(
        load_predictions(bench.chain.store.folder(ref), rows),
        load_predictions(bench.chain.store.folder(alone), rows),
    )


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 5])
def test_a_killed_search_ends_with_the_trials_of_an_unbroken_one(
    bench: Bench, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tlcore.stages.train as training

    looks, one = iter(range(1000)), training.train_one

    def dying(*arguments: Any, after_epoch: Any = None, **options: Any) -> training.Outcome:
        def look(epoch: Any) -> None:
            if after_epoch is not None:
                after_epoch(epoch)
            if next(looks) == kills:
                raise Killed

        return one(*arguments, after_epoch=look, **options)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(training, "train_one", dying)
        bench("search", trials=3)
    broken = bench.read(again := bench("search", trials=3)).search
    kept = bench.weights(again)
    bench.chain.store.root.joinpath("stages", "search").rename(bench.chain.store.root / "aside")
    whole = bench.read(ref := bench("search", trials=3)).search
    assert broken is not None and whole is not None
    bare = {"seconds": 0.0}
    assert [t.model_copy(update=bare) for t in broken.trials] == [
        t.model_copy(update=bare) for t in whole.trials
    ]
    assert broken.best == whole.best and same(kept, bench.weights(ref))


@pytest.mark.slow
def test_a_soup_is_a_mean_of_its_members_and_not_worse_on_validation(bench: Bench) -> None:
    # Trainings that differ by the draws of their mixing: their mean is steadier than each.
    rates = {"lr": 3e-3, "epochs": 3, "batch_size": 8, "mixup": 0.3}
    shares = {"mixup": [0.2, 0.4]}
    ref = bench("search", "full", rates, trials=8, fields=["mixup"], bounds=shares, soup=True)
    trained = bench.read(ref)
    assert trained.search is not None and (soup := trained.search.soup) is not None
    assert soup.offered[0] == trained.search.best == soup.members[0] and soup.validation >= soup.single
    assert soup.kept and len(soup.members) > 1
    members = [
        bench.weights(bench("train", "full", {**rates, **trained.search.trials[number].options}))
        for number in soup.members
    ]
    for name, value in bench.weights(ref).items():
        if np.issubdtype(value.dtype, np.floating):
            expected = np.mean([member[name].astype(np.float64) for member in members], axis=0)
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(value, members[0][name])
    assert any("soup of trials" in note for note in trained.checkpoint.notes)
    assert trained.validation == soup.validation


@pytest.mark.slow
def test_only_so_many_weights_are_kept_while_it_searches(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MEMBERS", 2)
    trained = bench.read(bench("search", trials=4, soup=True))
    assert trained.search is not None and trained.search.soup is not None
    assert len(trained.search.soup.offered) <= 2


@pytest.mark.slow
def test_heads_in_closed_form_are_searched_by_the_options_that_they_name(bench: Bench) -> None:
    trained = bench.read(bench("search", "linear-probe", {"penalties": 3, "folds": 2}, trials=2))
    assert trained.search is not None and trained.search.space == {"scale": "common, each"}


@pytest.mark.slow
def test_with_cross_validation_there_is_a_search_and_no_soup(bench: Bench) -> None:
    trained = bench.read(
        bench("search", trials=2, soup=True, validation="cross-validation", folds=2, fields=["lr"])
    )
    assert trained.search is not None and trained.search.soup is None
    assert any("no soup" in note for note in trained.checkpoint.notes)
    assert "cross-validation" in trained.validated_on


@pytest.mark.slow
def test_a_budget_bounds_the_search_and_leaves_a_network(bench: Bench) -> None:
    trained = bench.read(bench("search", trials=50, budget=1e-3, fields=["lr"]))
    assert trained.search is not None and "budget" in trained.search.reason
    assert len(trained.search.trials) < 50 and trained.search.budget == 1e-3


@pytest.mark.slow
def test_bounds_that_are_not_the_options_own_end_the_stage(bench: Bench) -> None:
    with pytest.raises(UserError, match="outside the own bounds"):
        bench("search", trials=2, bounds={"lr": [1e-9, 1.0]})

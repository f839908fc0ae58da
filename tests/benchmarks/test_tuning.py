from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.process_memory import peak_memory
from benchmarks.tuning import claimed
from benchmarks.tuning_heads import draw, fit_head
from benchmarks.tuning_plan import EPOCHS, SCRATCH, best_of, cells, left_to_train, of_auto, specs
from benchmarks.tuning_rows import COLUMNS, Cell, Spec, begin, chosen_by_auto, keep, read
from benchmarks.tuning_tables import against_auto, by_shots, gaps, of_one_way, places_of, report, single_best
from tlcore.data.schema import image_table
from tlcore.data.splits import assign_splits
from tlcore.registry import Registry
from tlcore.training.predict import predict_features

PROBE, RIDGE, FULL = Spec("linear-probe"), Spec("ridge"), Spec.of("full", {"epochs": 10})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry.discover(cache_folder=tmp_path_factory.mktemp("cache"))


def row(spec: Spec, accuracy: float, seconds: float = 1.0, **changes: Any) -> dict[str, str]:
    found: dict[str, Any] = {
        "part": "features", "set": "flowers5", "candidate": "net", "shots": "5", "seed": "0", "tuner": spec.tuner,
        "options": spec.options, "validation": "", "classes": "5", "train_images": "25", "test_images": "150",
        "accuracy": str(accuracy), "seconds": "99", "cpu_seconds": str(seconds), "peak_mb": "500", "added_mb": "12",
        "notes": "", **changes,
    }  # fmt: skip
    return {name: str(value) for name, value in found.items()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 5), st.integers(0, 2**16))
def test_fewer_shots_are_among_more_and_every_class_gives_what_it_has(
    counts: list[int], fewer: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    few, more = draw(labels, str(fewer), seed), draw(labels, str(fewer + 2), seed)
    assert set(few) <= set(more)
    assert np.all(np.diff(more) > 0)
    assert np.bincount(labels[more], minlength=len(counts)).tolist() == [min(n, fewer + 2) for n in counts]
    assert np.array_equal(draw(labels, "all", seed), np.arange(len(labels)))


def test_another_seed_draws_other_images() -> None:
    labels = np.repeat(np.arange(3), 50)
    assert not np.array_equal(draw(labels, "5", 0), draw(labels, "5", 1))


def test_a_line_is_found_by_its_cell_and_the_later_of_two_counts(tmp_path: Path) -> None:
    path = tmp_path / "results" / "tuning.csv"
    begin(path)
    keep(row(FULL, 0.5), path)
    keep(row(FULL, 0.75), path)
    keep(row(FULL, 0.25, seed="1"), path)
    cell = Cell("features", "flowers5", "net", "5", 0, FULL)
    found = read(path)
    assert len(found) == 2
    assert found[cell.key]["accuracy"] == "0.75"


def test_a_line_that_a_kill_cut_short_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "tuning.csv"
    begin(path)
    keep(row(PROBE, 0.5), path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"features,flowers5,net,5,1,ridge,{}")
    assert len(read(path)) == 1
    begin(path)
    assert path.read_bytes() == whole


def test_no_table_is_an_empty_one(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing.csv") == {}
    begin(tmp_path / "tuning.csv")
    assert (tmp_path / "tuning.csv").read_text().strip().split(",") == list(COLUMNS)


def test_a_cell_has_one_worker(tmp_path: Path) -> None:
    cell = Cell("network", "flowers5", "net", "5", 0, PROBE)
    with claimed(tmp_path, cell) as first, claimed(tmp_path, cell) as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path, cell) as again:
        assert again


def test_tuners_are_parted_by_whether_they_keep_the_backbone(registry: Registry) -> None:
    heads, networks = specs(registry, "features", EPOCHS), specs(registry, "network", EPOCHS)
    assert {"linear-probe", "ridge", "gda", "knn", "mlp-head", "prototype"} <= {spec.tuner for spec in heads}
    assert {"prototype (cosine)", "prototype (mahalanobis)"} <= {spec.label for spec in heads}
    assert {"lp-ft", "scratch", "distill", "co-tuning", "linear-probe"} <= {spec.tuner for spec in networks}
    assert not {"lp-ft", "auto", "zero-shot"} & {spec.tuner for spec in heads}
    assert not {"knn", "mlp-head", "auto", "clip-probe"} & {spec.tuner for spec in networks}


def test_passes_are_bounded_but_not_those_that_a_caller_names(registry: Registry) -> None:
    (scratch,), (plain,), (named,) = (
        specs(registry, "network", 2, [name])
        for name in ("scratch", "lp-ft", 'lp-ft{"epochs": 7, "ema": 0.9}')
    )
    assert scratch == Spec.of("scratch", {"epochs": 2 * SCRATCH})
    assert plain == Spec.of("lp-ft", {"epochs": 2})
    assert named == Spec.of("lp-ft", {"ema": 0.9, "epochs": 7})
    assert named.label == "lp-ft (ema 0.9, epochs 7)"


def test_auto_is_a_cell_like_any_other() -> None:
    places = cells("network", ["flowers5"], ["5", "20"], [0], [Spec("auto")])
    found = of_auto(places, {"flowers5": 5}, {("flowers5", "5"): 20, ("flowers5", "20"): 85})
    assert [cell.spec for cell in found] == [chosen_by_auto(5, 20), chosen_by_auto(5, 85)]
    assert [cell.shots for cell in found] == ["5", "20"]
    assert all(cell.spec.tuner != "auto" for cell in found)


@pytest.mark.parametrize("images", [1, 2, 3, 5, 10, 20, 60])
def test_what_is_left_to_train_on_is_what_the_data_check_leaves(images: int) -> None:
    names = [f"train/{k}/{i}.jpg" for k in "ab" for i in range(images)] + ["test/a/0.jpg"]
    table = image_table(
        "few", sample_ids=names, uris=names, labels=[name.split("/")[1] for name in names],
        splits=[name.split("/")[0] for name in names],
    )  # fmt: skip
    made = assign_splits(table, validation=0.15, test=0.2, seed=0)
    assert (made.table["split"] == "train").sum() == 2 * left_to_train(images)


def test_the_best_are_those_that_were_everywhere() -> None:
    network = [
        row(spec, accuracy, part="network", shots=shots)
        for spec, accuracies in (
            (PROBE, (0.5, 0.6)), (RIDGE, (0.7, 0.6)), (FULL, (0.9,)), (Spec("l2-sp"), (0.2, 0.3)), (Spec("bss"), (0.8, 0.8)),
        )
        for shots, accuracy in zip(("5", "20"), accuracies, strict=False)
    ]  # fmt: skip
    later = row(Spec("l2-sp"), 1.0, part="network", seed="1")
    assert best_of([*network, later], 2) == [Spec("bss"), RIDGE, PROBE]


def chooses_probe(classes: int, images: int) -> Spec:
    return PROBE


def test_gaps_are_points_on_common_seeds_and_a_rival_costs_no_more_or_a_second_more() -> None:
    rows = [
        row(PROBE, 0.80, 1.0), row(PROBE, 0.60, 3.0, seed="1"),
        row(RIDGE, 0.81, 2.9), row(RIDGE, 0.63, 2.9, seed="1"),
        row(FULL, 0.90, 60.0), row(FULL, 0.70, 60.0, seed="1"),
        row(Spec("knn"), 1.0, 0.1),
    ]  # fmt: skip
    places = places_of(rows, chooses_probe)
    (gap,) = gaps(places, frozenset("01"))
    assert (gap.chosen, gap.best, gap.near) == ("linear-probe", "full (epochs 10)", "ridge")
    assert gap.accuracy == pytest.approx(70)
    assert gap.gap == pytest.approx(10)
    assert gap.near_gap == pytest.approx(2)
    assert (gap.rival, gap.rival_gap) == ("linear-probe", 0)
    assert single_best(places, frozenset("01")) == ("full (epochs 10)", pytest.approx(10))
    (first,) = gaps(places, frozenset("0"))
    assert (first.best, first.rival) == ("knn", "knn")
    assert first.rival_gap == pytest.approx(20)


def test_the_claims_are_held_to_their_limits() -> None:
    near = places_of([row(PROBE, 0.80), row(RIDGE, 0.81), row(FULL, 0.80, 50)], chooses_probe)
    assert against_auto(near, frozenset("0")).count("holds") == 4
    far = places_of([row(PROBE, 0.80), row(RIDGE, 0.84)], chooses_probe)
    assert against_auto(far, frozenset("0")).count("does not hold") == 4
    assert "no line" in against_auto(places_of([row(RIDGE, 0.84)], chooses_probe), frozenset("0"))


def test_the_table_shows_means_and_the_deviation_over_seeds_of_means_over_sets() -> None:
    rows = [
        row(RIDGE, accuracy, seconds, seed=seed, set=name)
        for seed, name, accuracy, seconds in (("0", "a", 0.5, 1), ("0", "b", 0.7, 2), ("1", "a", 0.6, 3), ("1", "b", 0.8, 4))
    ]  # fmt: skip
    rows.append(row(PROBE, 0.9, set="a", peak_mb="", added_mb=""))
    text = by_shots(rows, places_of(rows, lambda classes, images: FULL))
    assert "65.0 ± 7.1" in text  # deviation of 60 and 70
    assert "2.50" in text
    assert "90.0*" in text


def test_wall_time_stands_in_where_a_training_was_interrupted() -> None:
    places = places_of([row(PROBE, 0.5, seconds=12.5, cpu_seconds="")], chooses_probe)
    (tuners,) = places.values()
    assert tuners["linear-probe"].seconds == {"0": 99.0}


def test_ways_of_validation_are_not_mixed() -> None:
    rows = [
        row(spec, 0.5, part="network", validation=way)
        for way, given in (("auto", (PROBE,)), ("held-out", (PROBE, RIDGE)))
        for spec in given
    ]
    kept, ways = of_one_way(rows)
    assert ways == {"5": "held-out"}
    assert {line["validation"] for line in kept} == {"held-out"}
    assert "5 images a class: held-out" in report(rows)


@pytest.mark.parametrize("shots", [1, 4, 60])
def test_every_head_is_fitted_from_one_image_a_class_on(registry: Registry, shots: int) -> None:
    rng = np.random.default_rng(0)
    centres = 6 * np.eye(3, 8)
    labels = np.repeat(np.arange(3), shots)
    features = (centres[labels] + rng.normal(size=(len(labels), 8))).astype(np.float32)
    others = np.repeat(np.arange(3), 30)
    unseen = (centres[others] + rng.normal(size=(90, 8))).astype(np.float32)
    for spec in (PROBE, RIDGE, Spec("mlp-head")):
        tuner = registry.build("tuner", spec.tuner, {"epochs": 15} if spec.tuner == "mlp-head" else {})
        network, note = fit_head(tuner, features, labels, ("a", "b", "c"), 0)
        assert (predict_features(network, unseen)[1].argmax(1) == others).mean() > 0.85, spec
        expected = {1: "the training images", 4: "4-fold", 60: "36 images"}[shots]
        assert (expected in note) == (spec.tuner == "mlp-head")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says the highest mark")
def test_the_peak_is_of_this_work_alone() -> None:
    np.ones(60_000_000).sum()  # 480 MB, before
    with peak_memory() as peak:
        np.ones(16_000_000).sum()  # 122 MiB
    assert peak.added_mb is not None
    assert 110 < peak.added_mb < 300

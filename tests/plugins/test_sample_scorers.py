"""What every scorer that reads single images must survive: one clear value or one clear error, never NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.protocols import Evidence, Scorer
from tlcore_scorers.knn import KNearestNeighbours
from tlcore_scorers.logistic_probe import LogisticProbe
from tlcore_scorers.nleep import NLeep
from tlcore_scorers.parc import Parc
from tlcore_scorers.sfda import Sfda
from tlcore_scorers.transrate import TransRate

SCORERS: list[Scorer] = [
    KNearestNeighbours(), KNearestNeighbours(measure="accuracy"), LogisticProbe(), LogisticProbe(measure="accuracy"),
    NLeep(), NLeep(covariance="diag"), Parc(), Sfda(), Sfda(measure="probability", shrinkage="paper"), TransRate(),
]  # fmt: skip
every = pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: f"{s.card.name}-{SCORERS.index(s)}")
SCALED = [s for s in SCORERS if not (isinstance(s, Sfda) and s.shrinkage == "paper")]
UNORDERED = [s for s in SCORERS if not isinstance(s, LogisticProbe | NLeep)]
"""Those that draw neither folds nor first clusters by the positions of the images."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and wait for them on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def problem(
    n: int, d: int, classes: int = 3, signal: float = 0.6, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = draw.normal(size=(classes, d)) * signal
    rows = centres[labels] + draw.normal(size=(n, d)) * np.geomspace(2, 0.2, d)
    return rows.astype(np.float32), labels


def score(
    scorer: Scorer, features: NDArray[Any], labels: Any, classes: int | None = None, seed: int = 0
) -> float:
    codes = np.asarray(labels, dtype=np.int64)
    count = classes or int(codes.max()) + 1
    moments = Moments.of(np.ones((len(codes), 1)), codes, count)
    return scorer.score(Evidence(moments, codes, lambda: features, lambda: None, seed))


@every
@pytest.mark.parametrize(("n", "d"), [(60, 8), (24, 100)])
def test_informative_features_score_above_noise(scorer: Scorer, n: int, d: int) -> None:
    good, labels = problem(n, d, signal=1.0)
    noise, _ = problem(n, d, signal=0.0, seed=1)
    if isinstance(scorer, Sfda) and scorer.shrinkage == "paper" and n < d:
        # Documented: with fewer images than features the paper's shrinkage lets every network reach 1.
        assert score(scorer, good, labels) == score(scorer, noise, labels) == pytest.approx(1.0)
        return
    assert score(scorer, good, labels) > score(scorer, noise, labels)


@every
def test_read_only_features_score_and_stay_as_they_are(scorer: Scorer) -> None:
    features, labels = problem(40, 12)
    kept = features.copy()
    features.flags.writeable = labels.flags.writeable = False
    first = score(scorer, features, labels)
    assert score(scorer, features, labels) == first and np.isfinite(first)
    np.testing.assert_array_equal(features, kept)


@every
@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 80)])
def test_float32_and_float64_features_agree(scorer: Scorer, n: int, d: int) -> None:
    features, labels = problem(n, d)
    exact = features.astype(np.float64) * (1 + 1e-8)  # as far from it as float32 can tell
    assert score(scorer, exact, labels) == pytest.approx(score(scorer, features, labels), rel=2e-4, abs=1e-5)


@every
def test_a_constant_feature_and_an_offset_change_nothing(scorer: Scorer) -> None:
    features, labels = problem(60, 10)
    wide = features.astype(np.float64)
    before = score(scorer, wide, labels)
    moved = wide + 1e4
    assert score(scorer, moved, labels) == pytest.approx(before, rel=1e-4, abs=1e-5)
    with_constant = np.column_stack([wide, np.full(len(wide), 1e4)])
    if not isinstance(scorer, Parc | Sfda):  # D, the number of features, is part of these two
        assert score(scorer, with_constant, labels) == pytest.approx(before, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("scorer", SCALED, ids=lambda s: f"{s.card.name}-{SCORERS.index(s)}")
@pytest.mark.parametrize("factor", [1e4, 1e-6])
def test_the_scale_of_the_features_changes_nothing(scorer: Scorer, factor: float) -> None:
    for n, d in ((60, 8), (30, 80)):
        features, labels = problem(n, d)
        wide = features.astype(np.float64)
        assert score(scorer, wide * factor, labels) == pytest.approx(
            score(scorer, wide, labels), rel=1e-4, abs=1e-5
        )


@every
def test_labels_with_gaps_score_as_labels_without(scorer: Scorer) -> None:
    features, labels = problem(60, 8, classes=5)
    gaps = np.array([0, 1, 2, 3, 9])[labels]
    assert score(scorer, features, gaps, classes=12) == score(scorer, features, labels)


@pytest.mark.parametrize("scorer", UNORDERED, ids=lambda s: f"{s.card.name}-{SCORERS.index(s)}")
def test_the_order_of_the_images_does_not_matter(scorer: Scorer) -> None:
    features, labels = problem(90, 8, signal=1.0)
    order = np.random.default_rng(2).permutation(90)
    assert score(scorer, features[order], labels[order]) == pytest.approx(
        score(scorer, features, labels), rel=1e-5, abs=1e-9
    )


@every
def test_the_same_seed_gives_the_same_score_also_of_a_sample(scorer: Scorer) -> None:
    features, labels = problem(200, 8)
    small = scorer.model_copy(update={"max_images": 60})
    assert score(small, features, labels, seed=3) == score(small, features, labels, seed=3)
    assert len({score(small, features, labels, seed=seed) for seed in range(5)}) > 1


@every
@pytest.mark.parametrize("value", [0.0, 1e4, 0.3])
def test_features_without_variance_are_a_clear_error(scorer: Scorer, value: float) -> None:
    with pytest.raises(UserError, match="features carry no variance"):
        score(scorer, np.full((12, 5), value, dtype=np.float32), np.arange(12) % 3)


@every
def test_a_single_class_is_a_clear_error(scorer: Scorer) -> None:
    with pytest.raises(UserError, match="at least 2 classes"):
        score(scorer, problem(12, 5)[0], np.full(12, 1), classes=3)


@every
@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_images_are_a_clear_error_with_the_minimum(scorer: Scorer, n: int) -> None:
    with pytest.raises(UserError, match="at least 4 labelled images"):
        score(scorer, problem(n, 5)[0], np.zeros(n), classes=3)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_a_clear_error_naming_the_row(scorer: Scorer, bad: float) -> None:
    features, labels = problem(12, 5)
    features[7, 1] = bad
    with pytest.raises(UserError, match="row 7"):
        score(scorer, features, labels)


@every
def test_every_image_a_class_of_its_own_is_a_value_or_a_clear_error(scorer: Scorer) -> None:
    features, _ = problem(12, 5)
    attempt: Callable[[], float] = lambda: score(scorer, features, np.arange(12))  # noqa: E731
    if isinstance(scorer, Parc | LogisticProbe):
        with pytest.raises(UserError, match="at least (2|4) "):
            attempt()
    else:
        assert np.isfinite(attempt())


@every
def test_labels_that_a_feature_spells_out_score_finitely(scorer: Scorer) -> None:
    features, labels = problem(60, 10)
    spelt = np.eye(3, dtype=np.float32)[labels]
    assert np.isfinite(score(scorer, np.column_stack([features, 100 * spelt]), labels))
    assert np.isfinite(score(scorer, spelt, labels))


@every
def test_dead_rows_and_repeated_images_score_finitely(scorer: Scorer) -> None:
    features, labels = problem(40, 10)
    features[:8] = 0
    features[20:] = features[20]
    assert np.isfinite(score(scorer, features, labels))


@every
@settings(
    max_examples=10, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_small_problem_gives_a_finite_score_or_a_user_error(scorer: Scorer, data: st.DataObject) -> None:
    n, d = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 20))
    labels = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    kind = data.draw(st.sampled_from(["normal", "sparse", "few values", "huge"]))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = draw.normal(size=(n, d))
    if kind == "sparse":
        rows *= draw.random(size=(n, d)) < 0.2
    elif kind == "few values":
        rows = np.sign(np.round(rows))
    elif kind == "huge":
        rows = rows * 1e30
    try:
        value = score(scorer, rows.astype(np.float32), labels, classes=4)
    except UserError as error:
        assert error.what
    else:
        assert np.isfinite(value)

"""What breaks public transferability code, for every scorer that is discovered: a clear value or a clear error.

The rows are those that make published implementations crash, return NaN or infinity, or a number without meaning:
fewer images than features, scale, gaps in the labels, features or labels without variance, damaged values, labels
that features explain wholly, an offset in float32, bad condition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tlcore.errors import UserError
from tlcore.features.folds import fold_moments, fold_of
from tlcore.features.moments import Moments
from tlcore.features.regression import RegressionMoments
from tlcore.protocols import Evidence, Scorer
from tlcore.registry import Registry

REGISTRY = Registry.discover(block=())
SCORERS: list[Any] = [
    REGISTRY.build(one.kind, one.name, {})
    for one in REGISTRY.entries
    if one.kind == "scorer" and one.distribution == "tlcore"
]
every = pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.card.name)
looking = pytest.mark.parametrize(
    "scorer",
    [one for one in SCORERS if "source-probabilities" not in one.card.traits],
    ids=lambda scorer: scorer.card.name,
)
"""Those that look at features at all."""
LIFTED_BY_WIDTH = {"gbc": "similar width", "sfda": "more features than images"}
"""Scorers that put wide noise above narrow features that know the classes, and the words of their card about it."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and wait for them on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def problem(
    n: int = 60, d: int = 8, k: int = 3, *, skill: float = 1.5, seed: int = 0
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return (skill * draw.normal(size=(k, d)))[labels] + draw.normal(size=(n, d)), labels


def evidence_of(features: NDArray[Any], labels: Any, classes: int = 3, skill: float = 1.5) -> Evidence:
    """As the score stage makes it; the source head knows the classes as well as the features do."""
    codes = np.asarray(labels)
    logits = skill * np.eye(64)[codes % 64, : classes + 1]
    logits += np.random.default_rng(5).normal(size=logits.shape)
    mass = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    folds = fold_moments(features, codes, classes, mass)
    single = features.astype(np.float32)
    return Evidence(Moments.merge(folds), codes, lambda: single, lambda: mass, folds=folds)


def scored(
    scorer: Scorer, features: NDArray[Any], labels: Any, classes: int = 3, skill: float = 1.5
) -> float:
    value = scorer.score(evidence_of(features, labels, classes, skill))
    assert isinstance(value, float) and math.isfinite(value)
    return value


def clear(scorer: Scorer, features: NDArray[Any], labels: Any, classes: int = 3) -> None:
    """A finite value, or an error that a person can act on; which of the two is the scorer's own affair."""
    try:
        scored(scorer, features, labels, classes)
    except UserError as error:
        assert len(error.what) > 15 and "nan" not in error.what.lower().split()


def test_there_is_something_to_test() -> None:
    assert {"logme", "hscore", "ridge-cv", "lda", "gbc", "nce", "leep", "linear-cka"} <= {
        one.card.name for one in SCORERS
    }


@every
@pytest.mark.parametrize(("n", "d"), [(60, 8), (24, 200), (40, 40)])
def test_knowing_features_score_above_noise_with_many_and_with_few_images(
    scorer: Scorer, n: int, d: int
) -> None:
    labels = problem(n, d)[1]
    assert scored(scorer, *problem(n, d, skill=0.0), skill=0.0) < scored(scorer, problem(n, d)[0], labels)


@pytest.fixture(scope="module")
def wide_noise() -> Evidence:
    """200 images of 5 classes, 2048 features that say nothing."""
    return evidence_of(*problem(200, 2048, 5, skill=0.0, seed=1), classes=5, skill=0.0)


@pytest.fixture(scope="module")
def narrow_networks() -> list[Evidence]:
    """128 and 16 features of the same images, from which about nine in ten unseen ones are classified."""
    sizes = ((128, 0.3), (16, 0.7))
    return [evidence_of(*problem(200, d, 5, skill=skill), classes=5) for d, skill in sizes]


@looking
def test_wide_noise_scores_below_narrow_features_that_know_the_classes_or_the_card_warns_of_width(
    scorer: Scorer, wide_noise: Evidence, narrow_networks: list[Evidence]
) -> None:
    noise = scorer.score(wide_noise)
    below = all(noise < scorer.score(network) for network in narrow_networks)
    warning = LIFTED_BY_WIDTH.get(scorer.card.name)
    assert below if warning is None else (not below and warning in scorer.card.summary)


@every
@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_the_unit_of_the_features_does_not_lift_noise_above_them(scorer: Scorer, factor: float) -> None:
    features, labels = problem()
    noise = problem(skill=0.0)[0]
    assert scored(scorer, noise * factor, labels, skill=0.0) < scored(scorer, features * factor, labels)


@every
def test_gaps_in_the_labels_change_nothing(scorer: Scorer) -> None:
    features, labels = problem()
    exact = evidence_of(features, labels)
    gaps = np.array([1, 3, 8])[labels]
    mass = exact.source_probabilities()
    folds = fold_moments(features, gaps, 10, mass)
    apart = Evidence(Moments.merge(folds), gaps, exact.features, lambda: mass, folds=folds)
    assert scorer.score(apart) == pytest.approx(scorer.score(exact), rel=1e-9, abs=1e-9)


@looking
@pytest.mark.parametrize("value", [0.0, 1e4, 0.3])
def test_features_without_variance_are_a_clear_error(scorer: Scorer, value: float) -> None:
    with pytest.raises(UserError):
        scored(scorer, np.full((60, 8), value, dtype=np.float32), problem()[1])


@looking
def test_a_constant_feature_beside_the_others_changes_no_more_than_their_number_does(scorer: Scorer) -> None:
    """A constant is a feature less; where the number of features counts, a dead one counts the same."""
    features, labels = problem()
    one, other = (
        scored(scorer, np.column_stack([features, np.full(60, value)]).astype(np.float32), labels)
        for value in (0.0, 1e3)
    )
    assert one == pytest.approx(other, rel=2e-3, abs=2e-3)


@every
def test_a_single_class_is_a_clear_error(scorer: Scorer) -> None:
    with pytest.raises(UserError, match="class"):
        scored(scorer, problem()[0], np.ones(60, dtype=np.int64))


@every
@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_to_three_images_are_a_clear_error(scorer: Scorer, n: int) -> None:
    with pytest.raises(UserError):
        scored(scorer, *problem(n, 5))


@every
@pytest.mark.parametrize("n", [4, 5, 6, 9])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("d", [1, 30])
def test_the_least_numbers_of_images_give_a_value_or_a_clear_error(
    scorer: Scorer, n: int, k: int, d: int
) -> None:
    clear(scorer, *problem(n, d, k), classes=k)


@every
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_damaged_features_are_an_error_that_names_the_row(scorer: Scorer, wrong: float) -> None:
    features, labels = problem()
    features[7, 2] = wrong
    with pytest.raises(UserError, match="row 7"):
        scored(scorer, features, labels)


@every
def test_a_row_without_a_label_is_an_error_that_names_it(scorer: Scorer) -> None:
    features, labels = problem()
    labels[11] = -1
    with pytest.raises(UserError, match="row 11"):
        scored(scorer, features, labels)


@every
@pytest.mark.parametrize("d", [10, 200])
def test_labels_that_the_features_hold_give_a_finite_value_above_noise(scorer: Scorer, d: int) -> None:
    features, labels = problem(60, d, skill=0.0)
    held = np.column_stack([features, 30 * np.eye(3)[labels]])
    assert scored(scorer, held, labels, skill=30.0) > scored(scorer, features, labels, skill=0.0)
    scored(scorer, np.eye(3)[labels].astype(np.float32), labels)


@every
def test_a_float32_offset_of_50_costs_no_more_than_float32_does(scorer: Scorer) -> None:
    features, labels = problem(300)
    far = (features + 50).astype(np.float32)
    near = far.astype(np.float64) - 50
    assert scored(scorer, far, labels) == pytest.approx(scored(scorer, near, labels), rel=1e-3, abs=1e-3)


@every
@pytest.mark.parametrize(("n", "d"), [(90, 12), (24, 60)])
def test_a_condition_of_1e8_gives_a_finite_value(scorer: Scorer, n: int, d: int) -> None:
    features, labels = problem(n, d)
    scored(scorer, features * np.geomspace(1, 1e-8, d), labels)


@every
def test_images_that_occur_twice_and_classes_of_one_image_give_a_value_or_a_clear_error(
    scorer: Scorer,
) -> None:
    features, labels = problem(20, 6)
    clear(scorer, np.tile(features, (2, 1)), np.tile(labels, 2))
    clear(scorer, *problem(12, 6, 12), classes=12)
    lonely = labels.copy()
    lonely[-1] = 3
    clear(scorer, features, lonely, classes=4)


@every
def test_the_same_evidence_gives_the_same_score_and_is_left_as_it_was(scorer: Scorer) -> None:
    evidence = evidence_of(*problem())
    before = evidence.features().copy()
    assert scorer.score(evidence) == scorer.score(evidence)
    assert (evidence.features() == before).all()


@every
def test_real_valued_targets_are_scored_or_refused_and_constant_ones_refused(scorer: Scorer) -> None:
    features, _ = problem()
    nothing = np.zeros(60, dtype=np.int64)
    able = {one.card.name for one in SCORERS if "regression" in one.card.traits}
    for targets, constant in ((features[:, :2] @ np.ones((2, 1)), False), (np.full((60, 1), 2.5), True)):
        folds = [fold_of(nothing) == fold for fold in range(5)]
        shifts = {"shift": features.mean(axis=0), "target_shift": targets.mean(axis=0)}
        evidence = Evidence(
            Moments.of(features, nothing, 1), nothing, lambda: features.astype(np.float32), lambda: None,
            regression=RegressionMoments.of(features, targets), targets=targets,
            regression_folds=tuple(RegressionMoments.of(features[f], targets[f], **shifts) for f in folds),
        )  # fmt: skip
        if scorer.card.name in able and not constant:
            assert math.isfinite(scorer.score(evidence))
        else:
            with pytest.raises(UserError) as refused:
                scorer.score(evidence)
            if scorer.card.name not in able:  # and points to those that are
                hint = refused.value.hint or ""
                assert "logme" in hint and {one.card.name for one in SCORERS if one.card.name in hint} <= able


@pytest.mark.parametrize(
    "scorer",
    [one for one in SCORERS if "rotation-invariant" in one.card.traits],
    ids=lambda scorer: scorer.card.name,
)
@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 90)])
def test_the_promise_of_rotation_invariance_is_kept_in_the_row_space_too(
    scorer: Scorer, n: int, d: int
) -> None:
    features, labels = problem(n, d, skill=0.5)
    base = scored(scorer, features, labels)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(d, d)))[0]
    assert scored(scorer, features @ turn, labels) == pytest.approx(base, rel=1e-4, abs=1e-5)
    if n < d:
        row_space = np.linalg.qr(features.T, mode="r").T
        assert scored(scorer, row_space, labels) == pytest.approx(base, rel=1e-4, abs=1e-5)

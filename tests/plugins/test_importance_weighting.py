from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from tlcore.errors import PluginError, UserError
from tlcore.evaluation.domain_gap import density_ratio
from tlcore.protocols import TrainTask
from tlcore.training.heads import logistic_head
from tlcore.training.plan import HeadFit, HeadProblem
from tlcore_adapters.importance_weighting import (
    ImportanceWeighting,
    clipped_weights,
    effective_images,
    weighted_head,
)


@settings(deadline=None)
@given(
    st.integers(1, 60), st.floats(0, 4), st.sampled_from([0.0, 0.5, 1.0]), st.floats(1.01, 30), st.integers(0, 999)
)  # fmt: skip
def test_the_weights_solve_for_mean_one_under_the_clip(
    n: int, spread: float, power: float, clip: float, seed: int
) -> None:
    ratio = np.exp(spread * np.random.default_rng(seed).normal(size=n))
    got = clipped_weights(ratio, power, clip)
    raw = ratio**power

    def excess(log_scale: float) -> float:
        return float(np.minimum(np.exp(log_scale) * raw, clip).mean() - 1)

    scale = np.exp(brentq(excess, -50, 50, xtol=1e-12))
    np.testing.assert_allclose(got, np.minimum(scale * raw, clip), rtol=1e-6)
    assert got.mean() == pytest.approx(1) and got.max() <= clip * (1 + 1e-9)
    assert effective_images(got) >= n / clip * (1 - 1e-9)


def test_the_effective_number_of_images_by_hand() -> None:
    assert effective_images(np.ones(7)) == pytest.approx(7)
    assert effective_images(np.array([2.0, 2, 0, 0])) == pytest.approx(2)
    assert effective_images(np.array([3.0, 1])) == pytest.approx(16 / 10)


def covariate_shift() -> tuple[HeadProblem, np.ndarray]:
    """A boundary that no straight line follows; the target lies where one stretch of it is."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(0, 2, (800, 2)), rng.normal([2, 0], 0.7, (400, 2))

    def label(x: np.ndarray) -> np.ndarray:
        return (np.where(x[:, 0] > 0, x[:, 1] - (x[:, 0] - 2), -x[:, 1]) > 0).astype(np.int64)

    made = HeadProblem(source.astype(np.float32), label(source), ("a", "b"), 0, target.astype(np.float32))
    return made, label(target)


def test_under_covariate_shift_the_weighted_head_fits_where_the_target_lies() -> None:
    given, truth = covariate_shift()
    assert given.target is not None
    plain = logistic_head(given, penalties=5, folds=3)
    (phase,) = ImportanceWeighting().plan(TrainTask(given.classes, 2, 800, 400)).phases
    assert isinstance(phase, HeadFit)
    weight, bias, notes = phase.fit(given)
    accuracy = [((given.target @ w.T + b).argmax(1) == truth).mean() for w, b in (plain[:2], (weight, bias))]
    assert accuracy[0] < 0.6 and accuracy[1] > 0.8
    assert 80 <= notes["effective_images"] < 600 and 1 < notes["largest_weight"] <= 10


def test_with_power_nought_it_is_the_plain_head() -> None:
    given, _ = covariate_shift()
    weight, bias, notes = weighted_head(given, power=0.0, clip=10, penalties=3, folds=3)
    plain = logistic_head(given, penalties=3, folds=3)
    np.testing.assert_allclose(weight, plain[0], atol=1e-4)
    np.testing.assert_allclose(bias, plain[1], atol=1e-4)
    assert notes["effective_images"] == pytest.approx(800)


def test_images_of_classes_that_the_target_lacks_weigh_less() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(600) % 3
    centres = np.array([[0, 0], [3, 0], [0, 3]])
    source = centres[labels] + rng.normal(0, 1.2, (600, 2))
    target = centres[np.arange(300) % 2] + rng.normal(0, 1.2, (300, 2))
    weights = clipped_weights(density_ratio(source, target), 1.0, 10)
    assert weights[labels == 2].mean() < 0.5 * weights[labels != 2].mean()


@pytest.mark.parametrize("case", ["far apart", "constant", "fewer images than features"])
def test_domains_that_cannot_be_compared_still_give_a_finite_head(case: str) -> None:
    given, _ = covariate_shift()
    assert given.target is not None
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(30, 90)).astype(np.float32)
    given = {
        "far apart": replace(given, target=given.target + np.float32(1e4)),
        "constant": replace(given, target=np.ones_like(given.target)),
        "fewer images than features": HeadProblem(wide, np.arange(30) % 2, ("a", "b"), 0, wide[:20] + 1),
    }[case]
    weight, bias, notes = weighted_head(given, power=1.0, clip=10, penalties=2, folds=2)
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
    assert notes["effective_images"] >= len(given.features) / 10 - 1e-6


def test_without_a_target_or_with_one_image_it_says_what_it_needs() -> None:
    given, _ = covariate_shift()
    assert given.target is not None
    with pytest.raises(PluginError, match="needs the target's features"):
        weighted_head(replace(given, target=None), power=1.0, clip=10, penalties=2, folds=2)
    with pytest.raises(UserError, match="at least two images of each"):
        weighted_head(replace(given, target=given.target[:1]), power=1.0, clip=10, penalties=2, folds=2)

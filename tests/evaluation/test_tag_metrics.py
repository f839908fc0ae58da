from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tlcore.errors import GateError, UserError
from tlcore.evaluation.tag_metrics import (
    compare_tags,
    image_f1,
    measure_tags,
    weighted_average_precision,
    weighted_f1,
)

TAGS = ("cat", "dog", "sea")


def tagged(n: int, k: int = 3, seed: int = 0, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties, and tags that they half know."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, k)) < np.linspace(0.2, 0.6, k)).astype(np.float32)
    p = np.round(np.clip(0.35 * y + 0.65 * rng.random((n, k)), 0, 1) * steps) / steps
    return p, y


def test_values_are_those_of_scikit_learn() -> None:
    p, y = tagged(70)
    found = measure_tags(p, y, TAGS)
    assert found.mean_average_precision == pytest.approx(
        metrics.average_precision_score(y, p, average="macro")
    )
    assert found.per_tag["dog"] == pytest.approx(metrics.average_precision_score(y[:, 1], p[:, 1]))
    assert found.micro_f1 == pytest.approx(metrics.f1_score(y, p >= 0.5, average="micro"))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(y, p >= 0.5, average="macro"))
    assert found.positives == dict(zip(TAGS, y.sum(0).astype(int), strict=True))
    for name in ("mean_average_precision", "micro_f1", "macro_f1"):
        interval = getattr(found, f"{name}_ci")
        assert interval.low < getattr(found, name) < interval.high


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 25), seed=st.integers(0, 999), steps=st.sampled_from([1, 3, 50]))
def test_a_resample_counts_as_the_repeated_images_do(n: int, seed: int, steps: int) -> None:
    p, y = tagged(n, seed=seed, steps=steps)
    drawn = np.random.default_rng(seed).integers(0, n, n)
    counts = np.bincount(drawn, minlength=n)[None].astype(float)
    truth, given_ = y[drawn], p[drawn]
    found = weighted_average_precision(y > 0.5, p, counts)[0]
    for k in range(3):
        if truth[:, k].any():
            assert found[k] == pytest.approx(metrics.average_precision_score(truth[:, k], given_[:, k]))
        else:
            assert np.isnan(found[k])
    micro, macro = weighted_f1(y > 0.5, p >= 0.5, counts)
    occurring = np.flatnonzero(truth.any(0) | (given_ >= 0.5).any(0))
    assert micro[0] == pytest.approx(metrics.f1_score(truth, given_ >= 0.5, average="micro", zero_division=0))
    if occurring.size:
        expected = metrics.f1_score(truth, given_ >= 0.5, average="macro", labels=occurring, zero_division=0)
        assert macro[0] == pytest.approx(expected)


def test_the_f1_of_an_image_is_scikit_learns_and_one_where_nothing_is_to_be_found() -> None:
    p, y = tagged(50)
    p[0], y[0] = 0, 0
    each = image_f1(p, y)
    assert each[0] == 1
    assert each.mean() == pytest.approx(metrics.f1_score(y, p >= 0.5, average="samples", zero_division=1))


def test_without_a_tag_or_with_all_right_nothing_is_nan() -> None:
    nothing = measure_tags(np.zeros((4, 3)), np.zeros((4, 3)), TAGS)
    assert (nothing.mean_average_precision, nothing.micro_f1, nothing.macro_f1, nothing.per_tag) == (
        0,
        0,
        0,
        {},
    )
    assert "3 of 3 tags" in nothing.warnings[0]
    _, y = tagged(30)
    right = measure_tags(y, y, TAGS)
    assert (right.mean_average_precision, right.micro_f1, right.macro_f1) == (1, 1, 1)
    assert right.micro_f1_ci.low < 1  # 30 images prove no perfection
    single = measure_tags(np.array([[0.9]]), np.array([[1.0]]), ("cat",))
    assert single.mean_average_precision == 1 and single.warnings == ()


def test_wrong_inputs_are_refused_in_words() -> None:
    p, y = tagged(5)
    with pytest.raises(UserError, match="no labelled image"):
        measure_tags(p[:0], y[:0], TAGS)
    with pytest.raises(UserError, match="0 or 1"):
        measure_tags(p, np.where(y > 0, np.nan, y), TAGS)
    with pytest.raises(UserError, match="2 tags"):
        measure_tags(p, y, TAGS[:2])
    with pytest.raises(GateError, match="1 of 5"):
        measure_tags(np.where(np.arange(5)[:, None] == 2, 1.5, p), y, TAGS)


def test_better_tags_are_better_than_the_frequencies() -> None:
    p, y = tagged(120)
    often = np.broadcast_to(y.mean(0), p.shape)
    found = compare_tags(p, often, y, "frequencies")
    assert found.measure == "F1 per image"
    assert found.accuracy == pytest.approx(
        metrics.f1_score(y, often >= 0.5, average="samples", zero_division=1)
    )
    assert found.difference == pytest.approx(image_f1(p, y).mean() - found.accuracy)
    assert found.better
    with pytest.raises(UserError, match="pair"):
        compare_tags(p, often[:3], y, "frequencies")

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tlcore.errors import PluginError, UserError
from tlcore.protocols import TrainTask
from tlcore.training.heads import logistic_head
from tlcore.training.plan import HeadFit, HeadProblem
from tlcore_adapters.subspace_alignment import SubspaceAlignment, principal_axes, subspace_head


def problem(n: int = 90, m: int = 80, d: int = 12, seed: int = 0) -> tuple[HeadProblem, np.ndarray]:
    """Three classes in a plane of d dimensions; the target's features have another origin and other units."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(3, 2)) @ rng.normal(size=(2, d))
    truth = np.arange(m) % 3
    source = centres[np.arange(n) % 3] + rng.normal(size=(n, d))
    target = (centres[truth] + rng.normal(size=(m, d))) * rng.uniform(0.1, 5, d) + 10 * rng.normal(size=d)
    made = HeadProblem(
        source.astype(np.float32), np.arange(n) % 3, ("a", "b", "c"), 0, target.astype(np.float32)
    )
    return made, truth


@settings(deadline=None)
@given(st.integers(3, 15), st.integers(1, 12), st.integers(1, 12), st.integers(0, 999))
def test_the_axes_span_the_same_subspace_as_scikit_learns_pca(n: int, d: int, k: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows -= rows.mean(0)
    axes = principal_axes(rows, k)
    count = min(k, n - 1, d)
    assert axes.shape == (d, count)
    expected = PCA(count, svd_solver="full").fit(rows).components_
    np.testing.assert_allclose(np.abs(np.sum(axes.T * expected, axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(axes.T @ axes, np.eye(count), atol=1e-9)


@pytest.mark.parametrize(("n", "d", "k"), [(90, 12, 5), (40, 60, 10)])
def test_the_head_equals_scikit_learns_pieces_put_together(n: int, d: int, k: int) -> None:
    given, _ = problem(n=n, m=n, d=d)
    assert given.target is not None
    weight, bias, notes = subspace_head(given, dimensions=k, penalties=1, folds=2)
    source, target = (StandardScaler().fit_transform(x.astype(float)) for x in (given.features, given.target))
    onto = PCA(k, svd_solver="full").fit(target).components_.T
    axes = PCA(k, svd_solver="full").fit(source).components_.T
    transform, *_ = np.linalg.lstsq(axes, onto, rcond=None)  # argmin ||P_s M - P_t||
    aligned = source @ axes @ transform
    unit = np.sqrt(aligned.var(0).mean())
    expected = LogisticRegression(C=1, max_iter=5000, tol=1e-8).fit(aligned / unit, given.labels)
    np.testing.assert_allclose(
        given.target @ weight.T + bias, expected.decision_function(target @ onto / unit), atol=2e-2
    )
    assert notes["dimensions"] == k


def test_other_units_and_another_origin_that_mislead_source_only_mislead_it_no_more() -> None:
    given, truth = problem()
    assert given.target is not None
    plain = logistic_head(given, penalties=5, folds=3)
    (phase,) = SubspaceAlignment(dimensions=4).plan(TrainTask(given.classes, 12, 90, 80)).phases
    assert isinstance(phase, HeadFit)
    weight, bias, _ = phase.fit(given)
    accuracy = [((given.target @ w.T + b).argmax(1) == truth).mean() for w, b in (plain[:2], (weight, bias))]
    assert accuracy[0] < 0.7 and accuracy[1] > 0.9


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_between_identical_domains_with_all_axes_it_is_the_plain_head(seed: int) -> None:
    """With every axis kept the coordinates are a rotation of the standardised features."""
    given, _ = problem(d=5, seed=seed)
    given = replace(given, target=given.features)
    weight, bias, _ = subspace_head(given, dimensions=5, penalties=1, folds=2)
    plain = logistic_head(given, penalties=1, folds=2)
    np.testing.assert_allclose(
        given.features @ weight.T + bias, given.features @ plain[0].T + plain[1], atol=2e-2
    )


def test_more_dimensions_than_a_domain_has_are_cut_to_what_it_has() -> None:
    given, _ = problem()
    assert given.target is not None
    weight, bias, notes = subspace_head(
        replace(given, target=given.target[:4]), dimensions=500, penalties=2, folds=2
    )
    assert notes["dimensions"] == 3 and np.isfinite(weight).all() and np.isfinite(bias).all()


def test_domains_that_give_no_subspace_are_errors_that_say_why() -> None:
    given, _ = problem()
    assert given.target is not None
    cases = {
        "needs the target's features": replace(given, target=None),
        "at least two images of each domain": replace(given, target=given.target[:1]),
        "do not vary": replace(given, target=np.ones_like(given.target)),
    }
    for what, case in cases.items():
        with pytest.raises((PluginError, UserError), match=what):
            subspace_head(case, dimensions=3, penalties=2, folds=2)

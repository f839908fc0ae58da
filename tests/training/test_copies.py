"""Copies of an image are held out together by every head that chooses something on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss

from tlcore.errors import PluginError
from tlcore.stages.tables import copies_of
from tlcore.training.copies import held_out_parts
from tlcore.training.directions import _directions
from tlcore.training.gaussian import _Shared
from tlcore.training.head_inputs import labelled
from tlcore.training.heads import gda_head, knn_head, logistic_head, prototype_head, ridge_head
from tlcore.training.plan import HeadProblem, Solved
from tlcore.training.text_tuner import in_shot_parts
from tlcore.values import Dataset

HEADS: dict[str, Callable[[HeadProblem], Solved]] = {
    "ridge": lambda p: ridge_head(p, penalties=17),
    "gda": lambda p: gda_head(p, shrinkages=13),
    "mahalanobis": lambda p: prototype_head(p, metric="mahalanobis"),
    "cosine": lambda p: prototype_head(p, metric="cosine"),
    "knn": lambda p: knn_head(p, neighbours=None, temperature=None, max_images=1000),
    "logistic": lambda p: _solved(*logistic_head(p, penalties=7, folds=4, common_scale=True)),
}


def _solved(weight: np.ndarray, bias: np.ndarray, notes: Mapping[str, float]) -> Solved:
    return Solved({"weight": weight, "bias": bias}, notes=notes)


def problem(n: int, d: int, k: int, seed: int = 0, apart: float = 1.0) -> HeadProblem:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % k
    features = (rng.normal(size=(n, d)) + apart * rng.normal(size=(k, d))[labels]).astype(np.float32)
    return HeadProblem(features, labels, tuple(f"c{index}" for index in range(k)), seed)


def copied(given: HeadProblem, copies: int | np.ndarray, seed: int = 0) -> HeadProblem:
    """Each image so many times, in a random order."""
    number = np.repeat(np.arange(len(given.labels)), copies)
    rows = np.random.default_rng(seed).permutation(number)
    return replace(given, features=given.features[rows], labels=given.labels[rows], groups=rows + 100)


def same(left: Solved, right: Solved) -> bool:
    return dict(left.notes) == dict(right.notes) and all(
        np.array_equal(left.tensors[name], right.tensors[name]) for name in left.tensors
    )


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("n", "d"), [(40, 6), (20, 40)])
def test_numbers_of_images_that_all_differ_change_no_byte(name: str, n: int, d: int) -> None:
    given = problem(n, d, 3)
    numbered = replace(given, groups=np.random.default_rng(0).permutation(n) * 7)
    assert same(HEADS[name](given), HEADS[name](numbered))


@pytest.mark.parametrize("name", HEADS)
def test_random_labels_stay_random_though_each_image_is_there_three_times(name: str) -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(60, 30)).astype(np.float32), np.arange(60) % 3
    tripled = copied(HeadProblem(features, labels, ("a", "b", "c"), 0), 3)
    assert HEADS[name](tripled).notes["log_loss"] > 1
    assert HEADS[name](replace(tripled, groups=None)).notes["log_loss"] < 0.8


@pytest.mark.parametrize("name", ["ridge", "gda", "mahalanobis", "cosine"])
@pytest.mark.parametrize(("n", "d"), [(48, 8), (24, 40)])
def test_the_same_number_of_copies_of_each_image_changes_no_answer(name: str, n: int, d: int) -> None:
    given = problem(n, d, 3)
    once, twice = HEADS[name](given), HEADS[name](copied(given, 2))
    for note in once.notes.keys() - {"penalty"}:
        assert twice.notes[note] == pytest.approx(once.notes[note], rel=2e-2)
    centre = once.tensors.get("centre", np.zeros(d))
    rows = given.features - centre
    answers = [
        log_softmax(rows @ solved.tensors["weight"].T + solved.tensors["bias"], axis=1)
        for solved in (once, twice)
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=2e-2 * np.abs(answers[0]).max())


@pytest.mark.parametrize("name", HEADS)
def test_what_is_chosen_with_copies_answers_new_images_as_what_is_chosen_without(name: str) -> None:
    rng, centres = np.random.default_rng(9), np.random.default_rng(8).normal(size=(3, 40)) * 0.4
    given, new = (
        replace(
            part, features=(rng.normal(size=part.features.shape) + centres[part.labels]).astype(np.float32)
        )
        for part in (problem(60, 40, 3), problem(3000, 40, 3))
    )
    twice = copied(given, 2)
    losses = [_loss_on(new, HEADS[name](p)) for p in (given, twice, replace(twice, groups=None))]
    assert losses[1] < losses[0] * 1.05 and losses[1] < losses[2] * 1.001


def _loss_on(new: HeadProblem, solved: Solved) -> float:
    from torch import from_numpy, nn

    from tlcore.training.network import Network

    network = Network(nn.Identity(), new.features.shape[1], len(new.classes))
    network.set_head(solved)
    return float(log_loss(new.labels, network(from_numpy(new.features)).softmax(1).detach().numpy()))


def uneven(n: int, d: int, k: int, *, torn: bool, seed: int = 0) -> HeadProblem:
    """One to four copies of each image; torn: the copies of three images disagree about the label."""
    rng = np.random.default_rng(seed)
    given = copied(problem(n, d, k, seed), rng.integers(1, 5, n), seed)
    labels = given.labels.copy()
    if torn:
        groups = np.asarray(given.groups)
        several = [g for g in np.unique(groups) if (groups == g).sum() > 1][:3]
        for group in several:
            place = np.flatnonzero(given.groups == group)[0]
            labels[place] = (labels[place] + 1) % k
    return replace(given, labels=labels)


def scaled(given: HeadProblem) -> np.ndarray:
    x = given.features.astype(float)
    return np.asarray((x - x.mean(0)) / np.sqrt(x.var(0).mean()))


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize(("n", "d"), [(25, 6), (12, 40)])
def test_ridge_leaves_copies_out_as_a_loop_does(n: int, d: int, torn: bool) -> None:
    given = uneven(n, d, 3, torn=torn)
    x, targets = scaled(given), np.eye(3)[given.labels]
    groups = given.groups
    assert groups is not None
    errors = {}
    for penalty in np.linalg.svd(x, compute_uv=False)[0] ** 2 * np.logspace(-6, 2, 9):
        out = np.zeros_like(targets)
        for group in np.unique(groups):
            held = groups == group
            out[held] = Ridge(alpha=penalty, tol=1e-12).fit(x[~held], targets[~held]).predict(x[held])
        errors[penalty] = ((targets - out) ** 2).sum(), out
    best = min(errors, key=lambda penalty: errors[penalty][0])
    solved = ridge_head(given, penalties=9)
    assert solved.notes["penalty"] == pytest.approx(best)
    assert solved.notes["log_loss"] == pytest.approx(
        -log_softmax(solved.notes["scale"] * errors[best][1], axis=1)[np.arange(len(x)), given.labels].mean(),
        rel=1e-6,
    )


def test_ridge_of_numbers_and_tags_holds_copies_out_together() -> None:
    rng = np.random.default_rng(0)
    features, values = rng.normal(size=(40, 60)).astype(np.float32), rng.normal(size=40)
    numbers = copied(HeadProblem(features, values, ("n",), 0, None, "regression"), 3)
    assert ridge_head(numbers, penalties=17).notes["r2"] < 0.3
    assert ridge_head(replace(numbers, groups=None), penalties=17).notes["r2"] > 0.9
    drawn = rng.integers(0, 2, (40, 2)).astype(float)
    tags = copied(HeadProblem(features, drawn, ("a", "b"), 0, None, "multi-label"), 3)
    assert ridge_head(tags, penalties=17).notes["log_loss"] > 0.6
    assert ridge_head(replace(tags, groups=None), penalties=17).notes["log_loss"] < 0.1


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize(("n", "d", "ratio"), [(30, 4, 0.1), (14, 40, 1.0), (14, 40, 0.01)])
def test_gaussians_leave_copies_out_as_a_loop_does(n: int, d: int, ratio: float, torn: bool) -> None:
    given = uneven(n, d, 3, torn=torn)
    x, labels, groups = scaled(given), given.labels, given.groups
    assert groups is not None
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    apart = x - means[labels]
    added = ratio * np.trace(apart.T @ apart) / d * np.eye(d)
    expected = np.zeros((len(x), 3))
    for i in range(len(x)):
        rest = groups != groups[i]
        means = np.stack([x[rest & (labels == c)].mean(0) for c in range(3)])
        within = x[rest] - means[labels[rest]]
        covariance = (within.T @ within + added) / len(x) / (1 + ratio)
        expected[i] = [-(x[i] - m) @ np.linalg.solve(covariance, x[i] - m) / 2 for m in means]
    found = _Shared.of(labelled(given, "test")).left_out(ratio)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("torn", [False, True])
def test_prototypes_leave_copies_out_as_a_loop_does(torn: bool) -> None:
    given = uneven(20, 6, 3, torn=torn)
    labels, groups = given.labels, given.groups
    z = _directions(labelled(given, "test"))[1]
    cosines = np.zeros((len(z), 3))
    for i in range(len(z)):
        for c in range(3):
            mean = z[(groups != groups[i]) & (labels == c)].mean(0)  # type: ignore[index]
            cosines[i, c] = z[i] @ mean / np.linalg.norm(mean)
    solved = prototype_head(given, metric="cosine")
    raised = log_softmax(solved.notes["scale"] * cosines, axis=1)
    assert solved.notes["log_loss"] == pytest.approx(-raised[np.arange(len(z)), labels].mean(), rel=1e-6)


@pytest.mark.parametrize("torn", [False, True])
def test_neighbours_that_are_copies_have_no_vote_for_each_other(torn: bool) -> None:
    given = uneven(20, 6, 3, torn=torn)
    labels, groups = given.labels, given.groups
    assert groups is not None
    solved = knn_head(given, neighbours=4, temperature=0.2, max_images=100)
    z = _directions(labelled(given, "test"))[1].astype(np.float32)
    terms = []
    for i in range(len(z)):
        others = np.flatnonzero(groups != groups[i])
        near = others[np.argsort(-(z[others] @ z[i]), kind="stable")[:4]]
        weight = np.exp(((z[near] @ z[i]) - 1) / 0.2)
        terms.append(-np.log(0.99 * weight[labels[near] == labels[i]].sum() / weight.sum() + 0.01 / 3))
    assert solved.notes["log_loss"] == pytest.approx(np.mean(terms), rel=1e-3)
    assert solved.head.images == len(labels)


@pytest.mark.parametrize("name", HEADS)
def test_a_class_of_one_image_and_its_copies_is_not_asked(name: str) -> None:
    """As with one image a class: nothing was held out, and what is answered is finite."""
    given = problem(3, 5, 3)
    solved = HEADS[name](copied(given, 4))
    assert all(np.isfinite(value).all() for value in solved.tensors.values())
    if name in ("knn", "logistic"):
        assert "log_loss" not in solved.notes
    else:
        assert solved.notes["log_loss"] == pytest.approx(np.log(3))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=2, max_size=30),
    st.integers(2, 5),
    st.integers(0, 9),
)
def test_parts_keep_copies_together_and_leave_every_class_an_image(
    pairs: list[tuple[int, int]], folds: int, seed: int
) -> None:
    labels = np.unique([label for label, _ in pairs], return_inverse=True)[1]
    groups = np.array([group for _, group in pairs])
    found = [held for _, held in in_shot_parts(labels, folds, seed, groups)]
    for held in (*found, *held_out_parts(labels, groups, folds, seed)):
        rest = np.setdiff1d(np.arange(len(labels)), held)
        assert len(held) and not set(groups[held]) & set(groups[rest])
        assert set(labels[rest]) == set(labels)
    assert len(np.concatenate([[], *found])) == len(set(np.concatenate([[], *found])))


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=4, max_size=20),
    st.sampled_from(sorted(HEADS)),
    st.integers(1, 12),
)
def test_any_copies_give_a_finite_head(pairs: list[tuple[int, int]], name: str, d: int) -> None:
    labels = np.unique([label for label, _ in pairs], return_inverse=True)[1].astype(np.int64)
    groups = np.array([group for _, group in pairs])
    if len(set(labels)) < 2 or len(set(groups)) < 2:
        return
    features = np.random.default_rng(d).normal(size=(6, d)).astype(np.float32)[groups]
    solved = HEADS[name](HeadProblem(features, labels, ("a", "b", "c"), 0, groups=groups))
    assert all(np.isfinite(value).all() for value in solved.tensors.values())
    assert all(np.isfinite(value) for value in solved.notes.values())


def test_groups_that_are_not_one_number_an_image_are_refused() -> None:
    with pytest.raises(PluginError, match="the groups of 9 images"):
        ridge_head(replace(problem(9, 4, 3), groups=np.zeros(8, np.int64)), penalties=3)


def test_files_of_equal_bytes_are_copies_and_images_without_a_file_are_none() -> None:
    digests = ["x", "y", "x", "", None, ""]
    names = [str(place) for place in range(6)]
    columns = {"sample_id": names, "uri": names, "label": ["a", "b"] * 3, "split": ["train"] * 6}
    table = pl.DataFrame({**columns, "domain": ["source"] * 6, "sha256": digests})
    found = copies_of(Dataset("d", table, ("a", "b")), np.array([5, 0, 1, 2, 3, 4]))
    assert found[1] == found[3] and len(set(found)) == 5

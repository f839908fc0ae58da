from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.plugins.clip_problems import logits_of, problem_of
from tlcore.errors import UserError
from tlcore.protocols import TrainTask
from tlcore.training.plan import HeadFit, HeadProblem, Solved
from tlcore_tuners.clip_gda import ALPHAS, UNTRIED, ClipGda, gaussian_head
from tlcore_tuners.zero_shot import ZeroShot


def solve(problem: HeadProblem, tuner: ClipGda | ZeroShot | None = None) -> Solved:
    task = TrainTask(problem.classes, problem.features.shape[1], len(problem.labels))
    (phase,) = (tuner or ClipGda()).plan(task).phases
    assert isinstance(phase, HeadFit)
    solved = phase.fit(problem)
    assert isinstance(solved, Solved)
    return solved


def unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True))


@pytest.mark.parametrize(("images", "dim"), [(40, 6), (9, 30)], ids=["n>d", "n<d"])
def test_weights_are_those_of_the_shrunk_inverse_written_out(images: int, dim: int) -> None:
    problem = problem_of([row % 3 for row in range(images)], dim=dim)
    rows, labels = unit(problem.features), problem.labels
    means = np.stack([rows[labels == number].mean(0) for number in range(3)])
    covariance = np.cov((rows - means[labels]).T)
    inverse = dim * np.linalg.pinv((images - 1) * covariance + np.trace(covariance) * np.eye(dim))
    weight, bias = gaussian_head(rows, labels, 3)
    np.testing.assert_allclose(weight, means @ inverse, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(bias, -0.5 * np.einsum("kd,de,ke->k", means, inverse, means), rtol=1e-6)


def test_many_images_part_classes_as_linear_discriminant_analysis_does() -> None:
    problem = problem_of([row % 3 for row in range(6000)], noise=1.0)
    rows, labels = unit(problem.features), problem.labels
    weight, bias = gaussian_head(rows, labels, 3)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(rows, labels)
    assert ((rows @ weight.T + bias).argmax(1) == theirs.predict(rows)).mean() > 0.998


def test_logits_are_the_texts_and_alpha_times_the_gaussians() -> None:
    problem = problem_of([0, 0, 1, 1, 2, 2])
    text, both = solve(problem, ZeroShot()), solve(problem, ClipGda(alpha=0.5))
    weight, bias = gaussian_head(unit(problem.features), problem.labels, 3)
    wanted = logits_of(text, problem.features) + 0.5 * (unit(problem.features) @ weight.T + bias)
    found = logits_of(both, problem.features)
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True))
    assert both.notes == {"alpha": 0.5}


def test_alpha_is_the_best_of_the_grid_on_held_out_images() -> None:
    """Leave-one-out, which two folds of two images a class are, done by hand."""
    problem = problem_of([0, 0, 1, 1, 2, 2], noise=1.0, apart=1.0, seed=3)
    solved = solve(problem, ClipGda(folds=2))
    from sklearn.model_selection import StratifiedKFold

    rows, labels = unit(problem.features), problem.labels
    prior = logits_of(solve(problem, ZeroShot()), problem.features)
    tried = []
    for alpha in ALPHAS:
        right, loss = 0, 0.0
        cut = StratifiedKFold(2, shuffle=True, random_state=problem.seed).split(rows, labels)
        for train, held in cut:
            weight, bias = gaussian_head(rows[train], labels[train], 3)
            logits = prior[held] + alpha * (rows[held] @ weight.T + bias)
            right += int((logits.argmax(1) == labels[held]).sum())
            loss += float(np.sum(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(held)), labels[held]]))
        tried.append((-right, round(loss / 6, 3), alpha, loss / 6))
    assert solved.notes["alpha"] == min(tried)[2]
    assert solved.notes["held_out_accuracy"] == pytest.approx(-min(tried)[0] / 6)
    assert solved.notes["log_loss"] == pytest.approx(min(tried)[3])


def test_labels_help_where_texts_are_off() -> None:
    held = problem_of([0, 1, 2] * 40, seed=9, apart=3.0)
    problem = problem_of([0, 1, 2] * 8, apart=3.0)
    accuracy = [
        (logits_of(solved, held.features).argmax(1) == held.labels).mean()
        for solved in (solve(problem, ZeroShot()), solve(problem))
    ]
    assert accuracy[1] > accuracy[0] + 0.1


def test_one_image_a_class_takes_a_fixed_alpha_and_says_so() -> None:
    solved = solve(problem_of([0, 1, 2]))
    assert solved.notes == {"alpha": UNTRIED, "cross_validated": 0.0}
    weight, bias = gaussian_head(unit(problem_of([0, 1, 2]).features), np.arange(3), 3)
    rows = unit(problem_of([0, 1, 2]).features)
    total = np.trace(np.cov(rows.T))
    np.testing.assert_allclose(weight, 6 / total * rows)
    np.testing.assert_allclose(bias, -3 / total * (rows**2).sum(1))


def test_a_class_without_images_keeps_its_text_among_the_mean_of_the_others() -> None:
    problem = problem_of([0, 0, 0, 1, 1, 1])
    text = np.asarray(solve(problem, ZeroShot()).tensors["weight"])
    change = np.asarray(solve(problem, ClipGda(alpha=1.0)).tensors["weight"]) - text
    np.testing.assert_allclose(change[2], change[:2].mean(0))
    owls = problem_of([2] * 20, seed=5)
    assert (logits_of(solve(problem), owls.features).argmax(1) == 2).mean() > 0.9


def test_two_classes_are_needed_and_features_that_vary() -> None:
    with pytest.raises(UserError, match="at least two classes"):
        solve(problem_of([1, 1, 1]))
    same = dataclasses.replace(problem_of([0, 1, 2]), features=np.ones((3, 6), np.float32))
    with pytest.raises(UserError, match="are the same"):
        solve(same)
    along = np.outer([1.0, 2.0, 3.0], np.ones(6)).astype(np.float32)
    with pytest.raises(UserError, match="the same way"):
        solve(dataclasses.replace(same, features=along))


def test_images_that_are_copies_of_each_other_give_finite_weights() -> None:
    """Within each class no image differs, and in one fold all that are left are the same."""
    rows = np.array([[1, 0], [1, 0], [1, 0], [0, 1.0]], np.float32)
    base = problem_of([0, 0, 1, 1], dim=2, classes=("cat", "dog"))
    solved = solve(dataclasses.replace(base, features=rows))
    assert all(np.isfinite(value).all() for value in solved.tensors.values())


@settings(max_examples=25)
@given(st.lists(st.integers(0, 2), min_size=3, max_size=12), st.integers(0, 50), st.integers(2, 20))
def test_any_few_images_give_finite_tensors_of_the_right_shape(
    labels: list[int], seed: int, dim: int
) -> None:
    if len(set(labels)) < 2:
        return
    solved = solve(problem_of(labels, seed=seed, dim=dim))
    assert {name: np.shape(value) for name, value in solved.tensors.items()} == {
        "weight": (3, dim), "bias": (3,), "centre": (dim,)
    }  # fmt: skip
    assert all(np.isfinite(value).all() for value in solved.tensors.values())


def test_an_image_of_zeros_is_no_obstacle() -> None:
    problem = problem_of([0, 0, 1, 1, 2, 2])
    features = problem.features.copy()
    features[0] = 0
    solved = solve(dataclasses.replace(problem, features=features))
    assert all(np.isfinite(value).all() for value in solved.tensors.values())


def test_copies_of_an_image_are_held_out_together() -> None:
    """Labels by chance, each image three times: only one that has seen the image can know."""
    problem, rows = problem_of([0] * 30, dim=40, noise=1.0), np.repeat(np.arange(30), 3)
    repeated = dataclasses.replace(problem, features=problem.features[rows], labels=rows % 3)
    told, untold = (solve(dataclasses.replace(repeated, groups=groups)).notes for groups in (rows, None))
    assert told["held_out_accuracy"] < 0.6 < 0.9 < untold["held_out_accuracy"]
    assert told["log_loss"] > 3 * untold["log_loss"]

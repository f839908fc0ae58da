from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tests.plugins.clip_problems import logits_of, problem_of
from tlcore.errors import UserError
from tlcore.protocols import TrainTask
from tlcore.training.plan import HeadFit, HeadProblem, Solved
from tlcore_tuners.clip_probe import UNTRIED, ClipProbe, change_of_weights
from tlcore_tuners.zero_shot import ZeroShot


def solve(problem: HeadProblem, tuner: ClipProbe | ZeroShot | None = None) -> Solved:
    task = TrainTask(problem.classes, problem.features.shape[1], len(problem.labels))
    (phase,) = (tuner or ClipProbe()).plan(task).phases
    assert isinstance(phase, HeadFit)
    solved = phase.fit(problem)
    assert isinstance(solved, Solved)
    return solved


def test_without_a_prior_it_is_scikit_learns_regression() -> None:
    problem = problem_of([row % 3 for row in range(30)], noise=1.0)
    rows = problem.features.astype(np.float64)
    theirs = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=5000).fit(
        rows, problem.labels
    )
    found = change_of_weights(rows, np.zeros((30, 3)), problem.labels, 0.5)
    np.testing.assert_allclose(found, theirs.coef_, atol=1e-3)


def test_beside_a_prior_it_is_the_least_of_the_same_sum_by_autograd() -> None:
    problem = problem_of([row % 3 for row in range(12)], noise=1.0)
    rows = torch.from_numpy(problem.features.astype(np.float64))
    prior = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (12, 3)))
    labels = torch.from_numpy(problem.labels)
    weight = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        fit = torch.nn.functional.cross_entropy(prior + rows @ weight.T, labels, reduction="sum")
        loss = fit + 0.15 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]  # the same
    found = change_of_weights(rows.numpy(), prior.numpy(), problem.labels, 0.3)
    np.testing.assert_allclose(found, weight.detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-4)


def test_logits_are_the_texts_and_the_change_of_weights() -> None:
    problem = problem_of([0, 0, 1, 1, 2, 2], dim=20)
    text = solve(problem, ZeroShot())
    rows = problem.features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    prior = logits_of(text, problem.features)
    change = change_of_weights(rows, prior, problem.labels, 0.01)
    solved = solve(problem, ClipProbe(penalty=0.01))
    np.testing.assert_allclose(logits_of(solved, problem.features), prior + rows @ change.T, atol=1e-2)
    assert solved.notes == {"penalty": 0.01} and not np.asarray(solved.tensors["bias"]).any()


def test_a_large_penalty_leaves_the_text_as_it_is() -> None:
    problem = problem_of([0, 1, 2, 0], apart=1.0)
    np.testing.assert_allclose(
        solve(problem, ClipProbe(penalty=1e6)).tensors["weight"],
        solve(problem, ZeroShot()).tensors["weight"],
        atol=1e-4,
    )


def test_labels_at_random_leave_the_text_nearly_as_it_is() -> None:
    rng = np.random.default_rng(0)
    problem = problem_of([0, 1, 2] * 10, noise=0.1)
    problem = dataclasses.replace(problem, text=lambda texts: np.zeros((len(texts), 6)) + np.eye(6)[0])
    problem = dataclasses.replace(problem, labels=rng.permutation(problem.labels))
    change = np.asarray(solve(problem).tensors["weight"]) - np.asarray(
        solve(problem, ZeroShot()).tensors["weight"]
    )
    assert np.linalg.norm(change) < 5


def test_texts_that_are_off_are_mended() -> None:
    held = problem_of([0, 1, 2] * 40, seed=9, apart=3.0)
    problem = problem_of([0, 1, 2] * 8, apart=3.0)
    accuracy = [
        (logits_of(solved, held.features).argmax(1) == held.labels).mean()
        for solved in (solve(problem, ZeroShot()), solve(problem))
    ]
    assert accuracy[1] > accuracy[0] + 0.1
    assert solve(problem).notes["cross_validated"] == 1


def test_one_image_a_class_takes_a_fixed_penalty_and_says_so() -> None:
    assert solve(problem_of([0, 1, 2])).notes == {"penalty": UNTRIED, "cross_validated": 0.0}


def test_a_class_without_images_keeps_its_text() -> None:
    problem = problem_of([0, 0, 0, 1, 1, 1])
    text, found = solve(problem, ZeroShot()).tensors["weight"], solve(problem).tensors["weight"]
    np.testing.assert_array_equal(np.asarray(text)[2], np.asarray(found)[2])


def test_two_classes_are_needed() -> None:
    with pytest.raises(UserError, match="at least two classes"):
        solve(problem_of([1, 1, 1]))


@settings(max_examples=15, deadline=None)
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


def test_copies_of_an_image_are_held_out_together() -> None:
    """Labels by chance, each image three times: nothing that is learned of the one helps with another."""
    problem, rows = problem_of([0] * 30, dim=40, noise=1.0), np.repeat(np.arange(30), 3)
    repeated = dataclasses.replace(problem, features=problem.features[rows], labels=rows % 3)
    told, untold = (
        solve(dataclasses.replace(repeated, groups=groups), ClipProbe(scale=1.0)).notes
        for groups in (rows, None)
    )
    assert told["log_loss"] > 1 > 0.3 > untold["log_loss"]
    assert told.get("penalty", np.inf) > untold["penalty"]

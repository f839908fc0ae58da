from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from tlcore.errors import UserError
from tlcore.features.folds import FOLDS, fold_of
from tlcore.features.regression import RegressionMoments
from tlcore.selection.number_evidence import number_evidence, parted, target_folds, target_moments
from tlcore.selection.ranking import score_candidate
from tlcore.values import Candidate
from tlcore_scorers.knn import KNearestNeighbours
from tlcore_scorers.logme import LogME
from tlcore_scorers.ridge_cv import RidgeCV, held_out_target_error

CANDIDATE = Candidate(name="net", source={}, architecture="none")


def problem(n: int = 60, d: int = 6, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) + 3
    return features, 50 + 20 * (features @ rng.normal(size=d) + noise * rng.normal(size=n))


@pytest.mark.parametrize(("n", "d"), [(60, 6), (20, 40)])
def test_the_held_out_error_is_that_of_ridge_regression_fitted_fold_by_fold(n: int, d: int) -> None:
    features, number = problem(n, d)
    targets = np.column_stack([number, -(number**2)])
    labels = np.arange(n) % 3
    shares = np.array([1e-3, 1e-1, 10.0])
    error, null = held_out_target_error(target_folds(features, targets, labels), shares)
    fold = fold_of(labels)
    expected, nothing = np.zeros((3, 2)), np.zeros(2)
    for part in range(FOLDS):
        train, test = fold != part, fold == part
        centred = features[train] - features[train].mean(axis=0)
        largest = np.linalg.norm(centred, 2) ** 2
        nothing += ((targets[test] - targets[train].mean(axis=0)) ** 2).sum(axis=0)
        for place, share in enumerate(shares):
            model = Ridge(alpha=share * largest).fit(features[train], targets[train])
            expected[place] += ((targets[test] - model.predict(features[test])) ** 2).sum(axis=0)
    assert error == pytest.approx(expected, rel=1e-6)
    assert null == pytest.approx(nothing)


def test_a_panel_on_numbers_has_spread_and_prefers_features_that_know_them() -> None:
    features, number = problem()
    blind = np.random.default_rng(9).normal(size=features.shape)
    scores = []
    for rows in (features, blind):
        evidence = number_evidence(rows, number, "regression")
        found = score_candidate([LogME(), RidgeCV()], evidence, CANDIDATE, replicates=10)
        assert set(found.spread) == {"logme", "ridge-cv"} and not found.notes
        scores.append(found.scores)
    assert scores[0]["logme"] > scores[1]["logme"]
    assert scores[0]["ridge-cv"] > 0.8 > 0.2 > scores[1]["ridge-cv"]


def test_tags_are_a_target_each_and_constant_ones_count_for_nothing() -> None:
    features, number = problem()
    tags = np.column_stack([number > 50, number > 70, np.ones(60), np.zeros(60)]).astype(np.float32)
    evidence = number_evidence(features, tags, "multi-label")
    own = RegressionMoments.of(features, tags[:, :2])
    assert evidence.regression is not None and evidence.regression.targets == 2
    assert evidence.regression.target_mean == pytest.approx(own.target_mean)
    found = score_candidate([LogME(), RidgeCV()], evidence, CANDIDATE, replicates=10)
    assert set(found.spread) == {"logme", "ridge-cv"}


def test_scores_of_the_row_space_are_those_of_the_features() -> None:
    features, number = problem(20, 40)
    evidence = number_evidence(features, number, "regression")
    plain = LogME().score(evidence)
    assert score_candidate([LogME()], evidence, CANDIDATE, replicates=0).scores["logme"] == pytest.approx(
        plain, rel=1e-4
    )


def test_scorers_of_classes_are_left_out_with_one_note() -> None:
    kept, note = parted([LogME(), KNearestNeighbours(), RidgeCV()], "regression")
    assert [one.card.name for one in kept] == ["logme", "ridge-cv"]
    assert note == "knn is a score of classes and left out: these labels are numbers"
    assert parted([KNearestNeighbours()], "classification") == ([KNearestNeighbours()], "")
    assert parted([LogME()], "multi-label") == ([LogME()], "")


def test_targets_that_say_nothing_are_refused() -> None:
    features, _ = problem(10)
    with pytest.raises(UserError, match="no target varies"):
        target_moments(features, np.ones((10, 2)))
    with pytest.raises(UserError, match="at least 5 images"):
        target_folds(features[:4], np.arange(4.0)[:, None], np.zeros(4, np.int64))
    with pytest.raises(UserError, match="by fold"):
        RidgeCV().score(number_evidence(features, np.arange(10.0), "regression"))

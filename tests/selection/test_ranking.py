"""Ranks, ties, failures and the spread of scores."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata

from tlcore.errors import UserError
from tlcore.features.moments import Moments
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.ranking import left_out, rank, score_candidate
from tlcore.selection.subsets import draw_scale, half_samples, jackknife_interval, rotated
from tlcore.values import Candidate, Ranked
from tlcore_scorers.knn import KNearestNeighbours
from tlcore_scorers.logme import LogME, class_evidence
from tlcore_scorers.parc import Parc

CANDIDATE = Candidate(name="net", source={}, architecture="resnet18", params=11, prior=70.0)


def _data(n: int = 60, d: int = 90, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    centres = np.random.default_rng(99).normal(size=(3, d)) * 0.6
    return (centres[labels] + draw.normal(size=(n, d))).astype(np.float32), labels


def _evidence(
    features: NDArray[np.float32], labels: NDArray[np.int64], mass: NDArray | None = None
) -> Evidence:
    moments = Moments.of(features, labels, 3, mass)
    return Evidence(moments, labels, lambda: features, lambda: mass)


class Distance(Scorer):
    """Not invariant under rotation; reads the features."""

    card: ClassVar[Card] = Card("distance", "mean absolute feature", "none", traits=frozenset({"features"}))

    def score(self, evidence: Evidence) -> float:
        return float(np.abs(evidence.features()).mean())


class SourceMass(Scorer):
    card: ClassVar[Card] = Card("mass", "s", "none", traits=frozenset({"source-probabilities"}))

    def score(self, evidence: Evidence) -> float:
        mass = evidence.source_probabilities()
        assert mass is not None and evidence.moments.source_mass is not None
        assert len(mass) == len(evidence.labels) == evidence.moments.n
        return float(mass.max(axis=1).mean())


class Broken(Scorer):
    card: ClassVar[Card] = Card("broken", "s", "none")
    how: str = "raise"

    def score(self, evidence: Evidence) -> float:
        if self.how == "raise":
            raise ZeroDivisionError("of course")
        return float(self.how)


def _entry(name: str, skipped: str | None = None, **scores: float) -> Ranked:
    return Ranked(candidate=name, rank=None, scores=scores, skipped=skipped)


def test_a_candidate_gets_its_scores_and_intervals_around_them() -> None:
    evidence = _evidence(*_data())
    entry = score_candidate([LogME(), Distance()], evidence, CANDIDATE, images_per_second=5.0)
    assert entry.scores["logme"] == pytest.approx(LogME().score(evidence), rel=1e-10)
    for name, score in entry.scores.items():
        assert entry.spread[name].low < score < entry.spread[name].high
    assert (entry.params, entry.prior, entry.images_per_second, entry.skipped) == (11, 70.0, 5.0, None)
    again = score_candidate([LogME(), Distance()], evidence, CANDIDATE, images_per_second=5.0)
    assert again == entry
    assert score_candidate([LogME()], evidence, CANDIDATE, replicates=0).spread == {}


def test_replicates_of_a_rotation_invariant_score_equal_those_on_the_features_themselves() -> None:
    features, labels = _data()
    entry = score_candidate([LogME()], _evidence(features, labels), CANDIDATE)
    values = [
        float(class_evidence(Moments.of(features[rows], labels[rows], 3)).per_row.mean())
        for rows in half_samples(labels, 20, seed=0)
    ]
    wanted = jackknife_interval(entry.scores["logme"], values, draw_scale(60, 30))
    assert entry.spread["logme"].low == pytest.approx(wanted.low, abs=1e-9)
    assert entry.spread["logme"].high == pytest.approx(wanted.high, abs=1e-9)


def test_source_probabilities_follow_the_rows_of_a_subset() -> None:
    features, labels = _data()
    mass = np.random.default_rng(1).dirichlet(np.ones(4), size=60).astype(np.float32)
    entry = score_candidate([SourceMass()], _evidence(features, labels, mass), CANDIDATE)
    assert entry.scores["mass"] == pytest.approx(mass.max(1).mean()) and "mass" in entry.spread


@pytest.mark.parametrize(
    ("how", "message"),
    [("raise", "ZeroDivisionError: of course"), ("nan", "returned nan"), ("inf", "returned inf")],
)
def test_a_broken_scorer_leaves_a_note_and_the_others_their_scores(how: str, message: str) -> None:
    evidence = _evidence(*_data())
    entry = score_candidate([Broken(how=how), LogME()], evidence, CANDIDATE)
    assert list(entry.scores) == ["logme"] and entry.skipped is None
    assert message in entry.notes[0] and entry.notes[0].startswith("broken:")
    alone = score_candidate([Broken(how=how)], evidence, CANDIDATE)
    assert alone.scores == {} and alone.skipped is not None and message in alone.skipped


def test_a_candidate_without_variance_or_head_is_skipped_with_the_reason() -> None:
    _, labels = _data()
    flat = _evidence(np.ones((60, 4), dtype=np.float32), labels)
    assert "no variance" in (score_candidate([LogME()], flat, CANDIDATE).skipped or "")
    assert "source head" in (score_candidate([SourceMass()], flat, CANDIDATE).skipped or "")


def test_two_scorers_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="named twice"):
        score_candidate([LogME(), LogME(centred=False)], _evidence(*_data()), CANDIDATE)


def test_a_class_of_one_image_stays_in_every_subset() -> None:
    labels = np.array([0] * 9 + [1] * 5 + [2])
    subsets = half_samples(labels, 10, seed=3)
    counts = {tuple(np.bincount(labels[rows])) for rows in subsets}
    assert len(counts) == 1 and min(counts.pop()) >= 1
    assert all(len(set(rows.tolist())) == rows.size for rows in subsets)
    assert len({tuple(rows) for rows in subsets}) > 5
    big = np.arange(10_000) % 7
    assert half_samples(big, 1, seed=0)[0].size == 512


def test_one_image_per_class_gives_a_score_and_no_spread() -> None:
    features, _ = _data(6)
    evidence = Evidence(Moments.of(features, np.arange(6), 6), np.arange(6), lambda: features, lambda: None)
    entry = score_candidate([LogME()], evidence, CANDIDATE)
    assert "logme" in entry.scores and entry.spread == {} and "no spread" in entry.notes[0]


def test_rotation_into_the_row_space_keeps_all_inner_products() -> None:
    features, _ = _data()
    small = rotated(features)
    assert small.shape == (60, 60)
    np.testing.assert_allclose(small @ small.T, features.astype(float) @ features.T.astype(float), atol=1e-9)
    assert rotated(features[:, :5]).shape == (60, 5)


def test_a_bootstrap_with_replacement_would_miss_the_score_it_belongs_to() -> None:
    """Why the spread does not use one: repeated images pass for confirmed ones."""
    features, labels = _data()
    score = LogME().score(_evidence(features, labels))
    draw = np.random.default_rng(0)
    values = []
    for _ in range(10):
        rows = np.concatenate([draw.choice(np.flatnonzero(labels == k), 20) for k in range(3)])
        values.append(float(class_evidence(Moments.of(features[rows], labels[rows], 3)).per_row.mean()))
    assert min(values) > score + 3 * float(np.std(values))


@pytest.mark.slow
@pytest.mark.parametrize("d", [8, 90])
def test_the_spread_is_that_of_new_draws_of_images(d: int) -> None:
    scores, widths = [], []
    for seed in range(30):
        entry = score_candidate([LogME()], _evidence(*_data(d=d, seed=seed)), CANDIDATE)
        scores.append(entry.scores["logme"])
        widths.append((entry.spread["logme"].high - entry.spread["logme"].low) / (2 * 1.96))
    assert 0.6 < np.mean(widths) / np.std(scores, ddof=1) < 1.6


@pytest.mark.slow
@pytest.mark.parametrize(
    "scorer", [Parc(max_images=60), KNearestNeighbours(max_images=60)], ids=lambda one: one.card.name
)
def test_the_spread_of_a_score_from_a_sample_is_that_of_new_draws_of_images(scorer: Scorer) -> None:
    scores, widths = [], []
    for seed in range(40):
        entry = score_candidate([scorer], _evidence(*_data(n=900, d=12, seed=seed)), CANDIDATE)
        scores.append(entry.scores[scorer.card.name])
        widths.append((entry.spread[scorer.card.name].high - scores[-1]) / 1.96)
    assert 0.7 < np.mean(widths) / np.std(scores, ddof=1) < 1.4


def test_candidates_are_ordered_by_mean_rank_and_skipped_ones_come_last() -> None:
    entries = [
        _entry("c", a=1.0, b=3.0),
        _entry("gone", skipped="no weights"),
        _entry("d", a=0.0, b=0.0),
        _entry("e", a=2.0, b=4.0),
        left_out(CANDIDATE, "unknown to timm"),
    ]
    ranking = rank(entries, scorers=["a", "b"], images=30)
    assert [(e.candidate, e.rank) for e in ranking.entries] == [
        ("e", 1), ("c", 2), ("d", 3), ("gone", None), ("net", None),
    ]  # fmt: skip
    assert ranking.best == "e" and ranking.entries[-1].skipped == "unknown to timm"
    assert (ranking.images, ranking.scorers) == (30, ("a", "b"))


def test_ties_share_a_rank_and_keep_candidate_order() -> None:
    entries = [_entry("x", a=1.0, b=2.0), _entry("y", a=2.0, b=1.0), _entry("z", a=0.0, b=0.0)]
    assert [(e.candidate, e.rank) for e in rank(entries, scorers=["a", "b"], images=1).entries] == [
        ("x", 1), ("y", 1), ("z", 3),
    ]  # fmt: skip
    rounding = [_entry("x", a=0.3), _entry("y", a=0.1 + 0.2)]
    assert [e.rank for e in rank(rounding, scorers=["a"], images=1).entries] == [1, 1]


def test_a_scorer_that_some_candidates_lack_weighs_the_same_for_the_others() -> None:
    entries = [_entry("headless", a=3.0), _entry("mid", a=2.0, b=1.0), _entry("low", a=1.0, b=0.0)]
    assert [e.candidate for e in rank(entries, scorers=["a", "b"], images=1).entries] == [
        "headless", "mid", "low",
    ]  # fmt: skip


def test_no_candidate_with_a_score_is_an_error_that_lists_the_reasons() -> None:
    with pytest.raises(UserError, match="x: no weights; net: too old"):
        rank([_entry("x", skipped="no weights"), left_out(CANDIDATE, "too old")], scorers=["a"], images=1)
    with pytest.raises(UserError, match="there are none"):
        rank([], scorers=["a"], images=1)


@given(
    st.lists(st.tuples(st.integers(-3, 3).map(float), st.integers(-3, 3).map(float)), min_size=1, max_size=9)
)
def test_ranks_are_those_of_scipy(scores: list[tuple[float, float]]) -> None:
    entries = [_entry(str(i), a=a, b=b) for i, (a, b) in enumerate(scores)]
    ranking = rank(entries, scorers=["a", "b"], images=1)
    mean = sum(rankdata([-s[column] for s in scores]) for column in (0, 1))
    wanted = rankdata(mean, method="min").astype(int)
    assert {e.candidate: e.rank for e in ranking.entries} == {str(i): r for i, r in enumerate(wanted)}
    order = [int(e.candidate) for e in ranking.entries]
    assert order == sorted(range(len(scores)), key=lambda i: (wanted[i], i))

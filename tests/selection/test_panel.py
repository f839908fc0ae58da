"""The panel by brute force, and what must not or must change a ranking."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from tlcore.errors import UserError
from tlcore.selection.panel import TIED_SHARE, panel_means, standings, tied_ranks
from tlcore.selection.ranking import rank
from tlcore.values import Interval, Ranked, Ranking

SCORERS = ("a", "b", "c")
DRAWS = 20
COARSE = st.integers(-4, 4).map(float)
"""Scores that often tie."""


@st.composite
def _pools(draw: st.DrawFn) -> list[Ranked]:
    """Up to 6 candidates with ties, missing scores, and draws that some candidates and scorers lack."""
    entries = []
    for index in range(draw(st.integers(1, 6))):
        scores = draw(st.dictionaries(st.sampled_from(SCORERS), COARSE, min_size=1))
        having = draw(st.sets(st.sampled_from(sorted(scores))))
        draws = {
            name: tuple(draw(st.lists(COARSE | st.none(), min_size=DRAWS, max_size=DRAWS)))
            for name in sorted(having)
        }
        entries.append(_entry(str(index), scores, draws))
    return entries


def _entry(
    name: str,
    scores: dict[str, float],
    draws: dict[str, tuple[float | None, ...]] | None = None,
    scale: float = 1.0,
) -> Ranked:
    return Ranked(
        candidate=name,
        rank=None,
        scores=scores,
        draws=draws or {},
        draw_scale=dict.fromkeys(draws or {}, scale),
    )


def _normal(name: str, mean: float, noise: float, seed: int, scorers: tuple[str, ...] = SCORERS) -> Ranked:
    draw = np.random.default_rng(seed)
    draws = {s: tuple(mean - 5 + noise * float(x) for x in draw.normal(size=DRAWS)) for s in scorers}
    return _entry(name, dict.fromkeys(scorers, mean), draws)


def _ranked(entries: list[Ranked], limit: int = 3) -> Ranking:
    return rank(entries, scorers=SCORERS, images=100, shortlist=limit)


def _by_name(ranking: Ranking) -> dict[str, Ranked]:
    return {entry.candidate: entry for entry in ranking.entries}


def _panel(scores: list[dict[str, float]]) -> list[Fraction]:
    """By the definition, in exact arithmetic."""
    parts: list[list[Fraction]] = [[] for _ in scores]
    for name in SCORERS:
        having = [i for i, row in enumerate(scores) if name in row]
        for place, i in zip(rankdata([-scores[i][name] for i in having]), having, strict=True):
            parts[i].append(Fraction(float(place)) / (len(having) + 1))
    return [sum(part, Fraction(0)) / len(part) for part in parts]


def _quantile(values: list[int], share: Fraction) -> int:
    return next(v for v in sorted(values) if sum(o <= v for o in values) >= share * len(values))


@settings(max_examples=60, deadline=None)
@given(_pools())
def test_standings_are_those_of_the_definition_step_by_step(entries: list[Ranked]) -> None:
    panel = _panel([entry.scores for entry in entries])
    place = [1 + sum(other < mine for other in panel) for mine in panel]
    drawn = [any(v is not None for values in e.draws.values() for v in values) for e in entries]
    places: list[list[int]] = [[] for _ in entries]
    level = [[0] * len(entries) for _ in entries]
    for s in range(DRAWS if any(drawn) else 0):
        shifted = []
        for entry in entries:
            moved = dict(entry.scores)
            for name, values in entry.draws.items():
                known = [v for v in values if v is not None]
                if values[s] is not None:
                    moved[name] += values[s] - sum(known) / len(known)
            # Fractions of floats would part ties that rounding made: compare as the scores are compared.
            shifted.append({name: round(value, 9) for name, value in moved.items()})
        means = _panel(shifted)
        for i, mine in enumerate(means):
            places[i].append(1 + sum(other < mine for other in means))
            for j, other in enumerate(means):
                level[i][j] += mine <= other
    found = standings(entries, SCORERS)
    for i, standing in enumerate(found):
        assert standing.panel == pytest.approx(float(panel[i]), abs=1e-11)
        assert standing.rank == place[i]
        if not drawn[i]:
            assert standing.rank_interval is None
            assert standing.tied_with_best == (place[i] == 1)
            continue
        low, high = (_quantile(places[i], Fraction(q, 1000)) for q in (25, 975))
        assert standing.rank_interval == Interval(low=min(low, place[i]), high=max(high, place[i]))
        first = [j for j, p in enumerate(place) if p == 1]
        best = max(level[i][j] for j in first)
        assert standing.tied_with_best == (place[i] == 1 or best >= TIED_SHARE * DRAWS)


@settings(max_examples=40, deadline=None)
@given(_pools(), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_nothing(entries: list[Ranked], random: object) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert _by_name(_ranked(entries)) == _by_name(_ranked(shuffled))


@settings(max_examples=40, deadline=None)
@given(_pools(), st.integers(0, 5))
def test_a_copy_of_a_candidate_ties_with_it_in_every_respect(entries: list[Ranked], index: int) -> None:
    original = entries[index % len(entries)]
    copy = original.model_copy(update={"candidate": "copy"})
    found = _by_name(_ranked([*entries, copy], limit=64))
    assert found["copy"].model_copy(update={"candidate": original.candidate}) == found[original.candidate]


@settings(max_examples=40, deadline=None)
@given(_pools(), st.sampled_from(SCORERS))
def test_any_rising_function_of_one_scorer_leaves_the_ranks(entries: list[Ranked], name: str) -> None:
    changed = [
        entry.model_copy(
            update={"scores": {s: v**3 + 7 if s == name else v for s, v in entry.scores.items()}}
        )
        for entry in entries
    ]
    before, after = standings(entries, SCORERS), standings(changed, SCORERS)
    assert [(s.rank, s.panel) for s in before] == [(s.rank, s.panel) for s in after]


@settings(max_examples=40, deadline=None)
@given(_pools(), st.sampled_from(SCORERS), st.sampled_from([0.25, 2.0, 8.0]), COARSE)
def test_the_unit_of_a_scorer_changes_neither_ranks_nor_intervals(
    entries: list[Ranked], name: str, unit: float, offset: float
) -> None:
    def other(value: float | None) -> float | None:
        return None if value is None else unit * value + offset

    changed = [
        entry.model_copy(
            update={
                "scores": {s: other(v) if s == name else v for s, v in entry.scores.items()},
                "draws": {
                    s: tuple(map(other, values)) if s == name else values for s, values in entry.draws.items()
                },
            }
        )
        for entry in entries
    ]
    assert standings(entries, SCORERS) == standings(changed, SCORERS)


@given(st.lists(COARSE, min_size=1, max_size=9))
def test_tied_ranks_are_those_of_scipy(scores: list[float]) -> None:
    np.testing.assert_array_equal(tied_ranks(np.array(scores)), rankdata([-s for s in scores]))


def test_equal_sums_of_ranks_in_another_order_are_equal_panels() -> None:
    rows = np.array(list(itertools.permutations([1.0, 2.0, 3.0, 4.0, 5.0])))
    assert len(set(panel_means(rows).tolist())) == 1


def test_a_clearly_best_candidate_is_a_shortlist_of_one() -> None:
    entries = [_normal("worse", 0.0, 0.1, 1), _normal("best", 3.0, 0.1, 2), _normal("worst", -3.0, 0.1, 3)]
    ranking = _ranked(entries)
    assert ranking.shortlist == ("best",)
    assert [e.rank_interval for e in ranking.entries] == [Interval(low=r, high=r) for r in (1, 2, 3)]


def test_noise_widens_the_intervals_and_the_shortlist() -> None:
    def widths(noise: float) -> tuple[float, int]:
        entries = [_normal(str(i), float(i), noise, i) for i in range(8)]
        ranking = _ranked(entries, limit=64)
        intervals = [e.rank_interval for e in ranking.entries]
        return sum(i.high - i.low for i in intervals if i is not None), len(ranking.shortlist)

    found = [widths(noise) for noise in (0.0, 0.5, 2.0, 50.0)]
    assert found[0] == (0.0, 1)
    assert all(wide > narrow for narrow, wide in itertools.pairwise(width for width, _ in found))
    assert [size for _, size in found] == sorted(size for _, size in found) and found[-1][1] == 8


def test_what_is_common_to_all_candidates_moves_no_rank() -> None:
    """Subsets that are easy for everybody: each score's own interval is wide, the order is firm."""
    common = np.random.default_rng(0).normal(size=DRAWS) * 100
    entries = [
        _entry(str(i), {"a": float(i)}, {"a": tuple(float(i + shift) for shift in common)}) for i in range(4)
    ]
    ranking = _ranked(entries)
    assert ranking.shortlist == ("3",)
    assert [e.rank_interval for e in ranking.entries] == [Interval(low=r, high=r) for r in (1, 2, 3, 4)]


def test_one_draw_in_twenty_is_enough_to_tie_and_none_is_not() -> None:
    best = _entry("best", {"a": 1.0}, {"a": (0.0,) * DRAWS})
    once = _entry("once", {"a": 0.0}, {"a": (20.0, *(0.0,) * (DRAWS - 1))})
    never = _entry("never", {"a": 0.0}, {"a": (0.9, *(0.0,) * (DRAWS - 1))})
    assert _ranked([best, once]).shortlist == ("best", "once")
    assert _ranked([best, never]).shortlist == ("best",)
    # ... and the scale from the subset to all images counts.
    assert _ranked([best, never.model_copy(update={"draw_scale": {"a": 2.0}})]).shortlist == ("best", "never")


def test_scores_that_rounding_alone_parts_share_their_rank() -> None:
    np.testing.assert_array_equal(tied_ranks(np.array([0.0, -2.2e-17, 1e-16])), [2, 2, 2])
    np.testing.assert_array_equal(tied_ranks(np.array([-1e-17, -3.6e-14, -0.5])), [1.5, 1.5, 3])
    np.testing.assert_array_equal(tied_ranks(np.array([1e6, 1e6 + 1e-4, 1.0])), [1.5, 1.5, 3])
    np.testing.assert_array_equal(tied_ranks(np.array([3e-8, 1e-8, 2e-8])), [1, 3, 2])


def test_the_shortlist_is_cut_at_its_limit_best_first() -> None:
    entries = [_normal(str(i), i / 100, 1.0, i) for i in range(6)]
    for limit in (1, 2, 4):
        ranking = _ranked(entries, limit)
        assert len(ranking.shortlist) == limit
        assert ranking.shortlist == tuple(e.candidate for e in ranking.entries if e.tied_with_best)[:limit]


def test_without_draws_only_an_equal_panel_ties() -> None:
    entries = [
        _entry("x", {"a": 1.0, "b": 0.0}),
        _entry("y", {"a": 0.0, "b": 1.0}),
        _entry("z", {"a": -1.0, "b": -0.5}),
    ]
    ranking = _ranked(entries)
    assert ranking.shortlist == ("x", "y")
    assert all(entry.rank_interval is None for entry in ranking.entries)
    # A candidate without draws stays where it is, whatever the others do.
    noisy = _normal("noisy", 0.0, 10.0, 0)
    still = _entry("still", dict.fromkeys(SCORERS, -0.1))
    assert _by_name(_ranked([noisy, still]))["still"].tied_with_best is False


def test_different_numbers_of_draws_are_refused() -> None:
    entries = [_entry("x", {"a": 1.0}, {"a": (1.0, 2.0)}), _entry("y", {"a": 1.0}, {"a": (1.0, 2.0, 3.0)})]
    with pytest.raises(UserError, match=r"different numbers of subsets: 2, 3"):
        _ranked(entries)


def test_the_static_prior_is_accuracy_where_all_have_it_else_size_and_never_moves_a_rank() -> None:
    def entry(name: str, score: float, params: int | None, prior: float | None) -> Ranked:
        return Ranked(candidate=name, rank=None, scores={"a": score}, params=params, prior=prior)

    full = [entry("x", 3.0, 10, 70.0), entry("y", 2.0, 30, 60.0), entry("z", 1.0, 20, 70.0)]
    ranking = rank(full, scorers=["a"], images=9, prior_source="results.csv")
    assert ranking.prior == "ImageNet top-1 from results.csv"
    assert [(e.candidate, e.rank, e.prior_rank) for e in ranking.entries] == [
        ("x", 1, 1),
        ("y", 2, 3),
        ("z", 3, 1),
    ]
    part = [*full, entry("w", 0.0, None, None)]
    ranking = rank(part, scorers=["a"], images=9, prior_source="results.csv")
    assert ranking.prior == "parameters"
    assert [(e.candidate, e.prior_rank) for e in ranking.entries] == [
        ("x", 3),
        ("y", 1),
        ("z", 2),
        ("w", None),
    ]
    assert [e.rank for e in ranking.entries] == [1, 2, 3, 4]
    unknown = rank([entry("w", 0.0, None, None)], scorers=["a"], images=9)
    assert unknown.prior == "" and unknown.entries[0].prior_rank is None
    # Who took no part has no place, and does not hide that all others have an accuracy.
    out = Ranked(candidate="out", rank=None, skipped="too large", params=99)
    ranking = rank([*full, out], scorers=["a"], images=9)
    assert ranking.prior == "ImageNet top-1" and ranking.entries[-1].prior_rank is None

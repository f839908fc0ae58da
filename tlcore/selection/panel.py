"""The panel: candidates ordered by the mean of their ranks over several scorers, and how firm that order is.

No single score is best on all data sets, and scores have no common unit; their ranks have. Per scorer,
candidates are ranked from the highest score down, equal scores sharing the mean of their ranks, and each
rank is divided by the number of candidates that this scorer ranked, plus one, so that a scorer that is not
defined for some candidates (no source head) weighs the same for the others. The panel of a candidate is the
mean of these over its scorers, in (0, 1); lower is better.

How firm: every score was computed again on the same subsets s = 1 … S of the images (m of n, the same ones
for all candidates). On each of them candidate and scorer get a redrawn score

    T'_s = T + (T_s - mean_s T_s) c,    c = sqrt(m / (n - m)) for a score that reads all images,

the score on all images plus the deviation on this subset, scaled from m images to n as the delete-d
jackknife does (`tlcore.selection.subsets`; c is larger for a score that reads a sample alone). The
deviations of all candidates and scorers come from the same images: what they have in common (a subset that
is easy for everybody) moves all of them and changes no rank. The panel computed from the T'_s of one s is
one draw of the ranking, and the S draws say how the ranking would vary over other images of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError
from tlcore.values import Interval, Ranked

__all__ = ["TIED_SHARE", "Standing", "panel_means", "standings", "tied_ranks"]

Float = NDArray[np.float64]
TIE = 1e-9
"""Scores nearer than this share of the largest one by size are equal: rounding must not decide a rank."""
ROUNDING = 1e-12
"""So are scores nearer than this, where all of them are nearly 0."""
TIED_SHARE = 0.05
"""A candidate that is at least as good as the best one in this share of the draws cannot be told from it."""
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Standing:
    """One candidate among the others.

    Attributes:
        panel: mean over its scorers of rank / (candidates ranked + 1).
        rank: 1 + the number of candidates with a lower panel; equal panels share it (1, 1, 3).
        rank_interval: the 2.5 % and the 97.5 % quantile of the rank over the draws (the smallest rank that at
            least this share of the draws does not exceed, so whole numbers; up to 39 draws that is their
            least and greatest rank), widened to hold `rank`; None where no score of the candidate was redrawn.
        tied_with_best: it has rank 1; or its scores were redrawn, and there is a candidate of rank 1 that it
            is at least as good as (panel not higher, in the same draw) in at least 5 % of the draws.
    """

    panel: float
    rank: int
    rank_interval: Interval | None
    tied_with_best: bool


def standings(entries: Sequence[Ranked], scorers: Sequence[str]) -> tuple[Standing, ...]:
    """The standing of every candidate, in the order given; each has a score by one of `scorers` at least.

    A score that was not redrawn (its scorer is too costly, or is not defined on subsets) keeps its value in
    every draw, and so does one that is not defined on this subset alone.

    Raises:
        UserError: a candidate without any of the scores; candidates redrawn on different numbers of subsets.
    """
    scores = _table(entries, scorers)
    unranked = [entry.candidate for entry, row in zip(entries, scores, strict=True) if np.isnan(row).all()]
    if unranked:
        raise UserError(
            f"no score by any of the scorers asked for: {', '.join(unranked)}", choices=entries[0].scores
        )
    panel = panel_means(scores)
    rank = _places(panel)
    redrawn = np.array([any(_drawn(entry, name) for name in scorers) for entry in entries], dtype=bool)
    if not redrawn.any():
        return tuple(
            Standing(float(mean), int(place), None, bool(place == 1))
            for mean, place in zip(panel, rank, strict=True)
        )
    draws = np.array([panel_means(scores + shift) for shift in _deviations(entries, scorers)])
    places = np.array([_places(means) for means in draws])
    low, high = np.quantile(places, _QUANTILES, axis=0, method="inverted_cdf")
    # Against each candidate of rank 1 by itself, so that the order of the entries decides nothing.
    level = np.max([(draws <= draws[:, [first]]).mean(axis=0) for first in np.flatnonzero(rank == 1)], axis=0)
    tied = (rank == 1) | (redrawn & (level >= TIED_SHARE))
    return tuple(
        Standing(
            panel=float(panel[i]),
            rank=int(rank[i]),
            rank_interval=Interval(low=float(min(low[i], rank[i])), high=float(max(high[i], rank[i])))
            if redrawn[i]
            else None,
            tied_with_best=bool(tied[i]),
        )
        for i in range(len(entries))
    )


def panel_means(scores: Float) -> Float:
    """Mean over the scorers of rank / (candidates ranked + 1), [C], from scores [C, scorers], NaN for none."""
    total, count = np.zeros(len(scores)), np.zeros(len(scores))
    for column in scores.T:
        having = ~np.isnan(column)
        total[having] += tied_ranks(column[having]) / (having.sum() + 1)
        count += having
    # Sums of the same ranks in another order must not part a tie.
    means: Float = np.round(total / count, 12)
    return means


def tied_ranks(scores: Float) -> Float:
    """Ranks from 1 for the highest score, [C]; scores that are equal to within rounding share the mean of theirs."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    nearest = max(TIE * float(np.abs(ordered).max(initial=0.0)), ROUNDING)
    starts = np.concatenate(([0], np.flatnonzero(ordered[:-1] - ordered[1:] > nearest) + 1))
    ends = np.append(starts[1:], scores.size)
    ranks = np.empty(scores.size)
    ranks[order] = np.repeat((starts + 1 + ends) / 2, ends - starts)
    return ranks


def _places(panel: Float) -> NDArray[np.int64]:
    """1 + the number of lower values, [C]."""
    places: NDArray[np.int64] = np.searchsorted(np.sort(panel), panel, side="left") + 1
    return places


def _table(entries: Sequence[Ranked], scorers: Sequence[str]) -> Float:
    rows = [[entry.scores.get(name, math.nan) for name in scorers] for entry in entries]
    return np.array(rows, dtype=np.float64).reshape(len(entries), len(scorers))


def _deviations(entries: Sequence[Ranked], scorers: Sequence[str]) -> Float:
    """(T_s - mean_s T_s) c, [S, C, scorers]; 0 where there is no T_s."""
    counts = {len(entry.draws[name]) for entry in entries for name in scorers if _drawn(entry, name)}
    if len(counts) > 1:
        raise UserError(
            f"candidates were scored on different numbers of subsets: {', '.join(map(str, sorted(counts)))}",
            hint="score all of them with the same selection.replicates",
        )
    found = np.zeros((counts.pop(), len(entries), len(scorers)))
    for row, entry in enumerate(entries):
        for column, name in enumerate(scorers):
            if _drawn(entry, name):
                drawn = np.array(entry.draws[name], dtype=np.float64)  # None becomes NaN
                shift = (drawn - np.nanmean(drawn)) * entry.draw_scale.get(name, 1.0)
                found[:, row, column] = np.where(np.isnan(shift), 0.0, shift)
    return found


def _drawn(entry: Ranked, scorer: str) -> bool:
    return any(value is not None for value in entry.draws.get(scorer, ()))

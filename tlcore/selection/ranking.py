"""From scores to a ranking, with the uncertainty of each score.

One candidate at a time: `score_candidate` asks every scorer and measures how much each score hangs on
the very images it was computed from. Then, over all candidates: `rank`. Nothing that one candidate or
one scorer does wrong ends the run; it is written down where the score would have been.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tlcore.errors import PluginError, TlcoreError, UserError
from tlcore.features.moments import Moments
from tlcore.protocols import Evidence, Scorer
from tlcore.selection.subsets import MAX_ROWS, half_samples, jackknife_interval, rotated
from tlcore.values import Candidate, Interval, Ranked, Ranking

__all__ = ["left_out", "rank", "score_candidate"]

TIE = 1e-9
"""Scores nearer than this share of their size are equal: rounding must not decide a rank."""
SMALL = 1024
"""Up to this many images or features, whichever is fewer, linear algebra runs on one thread."""
_BLAS_THREADS = threading.Lock()
MINIMUM_REPLICATES = 8
"""With fewer replicates than this an interval would be a guess, and none is given."""


def score_candidate(
    scorers: Sequence[Scorer],
    evidence: Evidence,
    candidate: Candidate,
    *,
    replicates: int = 20,
    images_per_second: float | None = None,
) -> Ranked:
    """Every scorer's score of one candidate, with its spread over images; `rank` is still None.

    A scorer that is not defined on this evidence, or that breaks its contract, leaves a note and no
    score. A candidate without any score is skipped, with the notes as the reason.

    Spread: a 95 % interval for the score over draws of as many images with the same class counts, by the
    delete-half jackknife (see `tlcore.selection.subsets`). A bootstrap with replacement will not do: it
    repeats images, and evidence takes a repeated image for a confirmed one, so that the whole interval
    lies above the score it belongs to.

    Args:
        replicates: half-samples per scorer, 0 for no spread. Draws follow `evidence.seed` and are the same
            for all candidates, so that candidates differ in nothing but their features.

    Raises:
        UserError: two scorers of the same name.
    """
    names = [scorer.card.name for scorer in scorers]
    if len(set(names)) != len(names):
        raise UserError(f"a scorer is named twice: {', '.join(names)}", where="[selection]")
    subsets = half_samples(evidence.labels, replicates, evidence.seed)
    scores: dict[str, float] = {}
    spread: dict[str, Interval] = {}
    notes: list[str] = []
    with _calm_blas(min(evidence.moments.n, evidence.moments.dim)):
        for scorer in scorers:
            name = scorer.card.name
            try:
                scores[name] = _checked_score(scorer, evidence)
            except TlcoreError as error:
                notes.append(f"{name}: {error.what}")
                continue
            if replicates:
                values = _replicated(scorer, evidence, subsets)
                images, half = evidence.labels.size, subsets[0].size
                if len(values) >= min(MINIMUM_REPLICATES, replicates) > 1 and half < images:
                    spread[name] = jackknife_interval(scores[name], values, images, half)
                else:
                    notes.append(f"{name}: no spread, the score is not defined on subsets of the images")
    return Ranked(
        candidate=candidate.name,
        rank=None,
        scores=scores,
        spread=spread,
        notes=tuple(notes),
        params=candidate.params,
        prior=candidate.prior,
        images_per_second=images_per_second,
        skipped=None if scores else "; ".join(notes) or "no scorer was asked",
    )


def left_out(candidate: Candidate, reason: str) -> Ranked:
    """The entry of a candidate that was never scored: unknown to timm, failed to load, …"""
    return Ranked(
        candidate=candidate.name, rank=None, params=candidate.params, prior=candidate.prior, skipped=reason
    )


def rank(entries: Sequence[Ranked], *, scorers: Sequence[str], images: int) -> Ranking:
    """Order candidates by the mean of their ranks over the scorers.

    Per scorer, candidates are ranked from the highest score down; equal scores share the mean of their
    ranks. Each rank is divided by the number of candidates this scorer ranked, plus one, so that a scorer
    that is not defined for some candidates (no source head) weighs the same for the others. Equal means
    share a rank (1, 1, 3) and keep the order of `entries`. Skipped candidates come last, without a rank.

    Raises:
        UserError: no candidate has a score; the reasons are listed.
    """
    scored = [entry for entry in entries if entry.skipped is None and entry.scores]
    if not scored:
        reasons = "; ".join(f"{entry.candidate}: {entry.skipped or 'no score'}" for entry in entries)
        raise UserError(
            f"no candidate could be scored ({reasons or 'there are none'})",
            hint="name other models with --models, or mend what is said above",
        )
    places: dict[int, list[Fraction]] = {index: [] for index in range(len(scored))}
    for name in scorers:
        having = [index for index, entry in enumerate(scored) if name in entry.scores]
        ranks = _ranks([-scored[index].scores[name] for index in having], TIE)
        for index, place in zip(having, ranks, strict=True):
            # Ranks are halves, so exact: sums in another order must not part a tie.
            places[index].append(Fraction(place) / (len(having) + 1))
    unranked = [scored[index].candidate for index, found in places.items() if not found]
    if unranked:
        raise UserError(
            f"no score by any of the scorers asked for: {', '.join(unranked)}", choices=scored[0].scores
        )
    means = [sum(found, Fraction(0)) / len(found) for found in places.values()]
    order = sorted(range(len(scored)), key=means.__getitem__)
    ranked: list[Ranked] = []
    for position, index in enumerate(order):
        tied = position > 0 and means[index] == means[order[position - 1]]
        number = cast(int, ranked[-1].rank) if tied else position + 1
        ranked.append(scored[index].model_copy(update={"rank": number}))
    rest = [
        entry.model_copy(update={"rank": None, "skipped": entry.skipped or "no score"})
        for entry in entries
        if entry.skipped is not None or not entry.scores
    ]
    return Ranking(entries=(*ranked, *rest), scorers=tuple(scorers), images=images)


@contextmanager
def _calm_blas(size: int) -> Iterator[None]:
    """One BLAS thread for small matrices.

    A replicate makes hundreds of calls too short to gain from threads; where other work wants the cores,
    waiting for the second thread in each of them made scoring twenty times slower (measured). The number of
    threads belongs to the process, hence the lock: two candidates at once must not restore each other's.
    """
    if size > SMALL:
        yield
        return
    with _BLAS_THREADS, threadpool_limits(limits=1, user_api="blas"):
        yield


def _checked_score(scorer: Scorer, evidence: Evidence) -> float:
    """The score, or an error of tlcore whatever the scorer does."""
    name = scorer.card.name
    if "source-probabilities" in scorer.card.traits and evidence.moments.source_mass is None:
        raise UserError("needs a network with its source head, and this one has none")
    try:
        value = float(scorer.score(evidence))
    except TlcoreError:
        raise
    except Exception as error:  # a plugin may raise anything, and must not end the run
        raise PluginError(f"the scorer failed: {type(error).__name__}: {error}", where=name) from error
    if not math.isfinite(value):
        raise PluginError(f"the scorer returned {value}, which is no score", where=name)
    return value


def _replicated(scorer: Scorer, evidence: Evidence, subsets: Sequence[NDArray[np.intp]]) -> list[float]:
    """The scores on the subsets where it is defined."""
    features: NDArray[np.floating] = evidence.features()
    probabilities = evidence.source_probabilities()
    invariant = "rotation-invariant" in scorer.card.traits
    if invariant and evidence.labels.size <= 2 * MAX_ROWS:
        features = rotated(features)  # once for all subsets: each then costs n^3 and not D^3
    values: list[float] = []
    for rows in subsets:
        part = rotated(features[rows]) if invariant else features[rows]
        mass = None if probabilities is None else probabilities[rows]
        labels = evidence.labels[rows]
        try:
            moments = Moments.of(part, labels, evidence.moments.classes, mass)
            subset = replace(evidence, moments=moments, labels=labels, **_readers(part, mass))
            values.append(_checked_score(scorer, subset))
        except TlcoreError:
            continue
    return values


def _readers(features: NDArray[np.floating], mass: NDArray[np.float32] | None) -> dict[str, Any]:
    """The two callables of `Evidence`, bound to this subset."""
    return {
        "features": lambda: np.asarray(features, dtype=np.float32),
        "source_probabilities": lambda: mass,
    }


def _ranks(values: Sequence[float], tie: float) -> list[float]:
    """Ascending ranks from 1; values that are equal to within `tie` share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order):
            before, here = values[order[end - 1]], values[order[end]]
            if here - before <= tie * max(abs(here), abs(before)):
                continue
        for index in order[start:end]:
            ranks[index] = (start + 1 + end) / 2
        start = end
    return ranks

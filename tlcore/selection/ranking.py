"""From scores to a ranking, with the uncertainty of each score.

One candidate at a time: `score_candidate` asks every scorer and measures how much each score hangs on
the very images it was computed from. Then, over all candidates: `rank`. Nothing that one candidate or
one scorer does wrong ends the run; it is written down where the score would have been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from tlcore.errors import PluginError, TlcoreError, UserError
from tlcore.protocols import Evidence, Scorer
from tlcore.selection.blas import calm_blas
from tlcore.selection.panel import standings
from tlcore.selection.redraws import SharedEvidence, redraws, whole
from tlcore.selection.subsets import draw_scale, half_samples, jackknife_interval
from tlcore.values import Candidate, Interval, Ranked, Ranking

__all__ = ["SHORTLIST", "left_out", "rank", "score_candidate"]

SHORTLIST = 3
"""Candidates at most that go on when they cannot be told from the best."""
COSTLY_ROWS = 160
"""Images of a subset up to which a scorer with the trait "costly" is asked again on every subset."""
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
    """Every scorer's score of one candidate, and again on subsets of the images; `rank` is still None.

    A scorer that is not defined on this evidence, or that breaks its contract, leaves a note and no
    score. A candidate without any score is skipped, with the notes as the reason.

    `draws` holds the score on each of `replicates` subsets of m of the n images (half of each class, 512
    images at most), None where it is not defined there, and `draw_scale` is sqrt(m / (n - m)). The subsets
    follow `evidence.seed` and the labels alone, so that they are the same for all candidates: `rank`
    compares candidates draw by draw. `spread` is a 95 % interval for the score over draws of as many images
    with the same class counts, by the delete-half jackknife (see `tlcore.selection.subsets`). A bootstrap
    with replacement will not do: it repeats images, and evidence takes a repeated image for a confirmed
    one, so that the whole interval lies above the score it belongs to.

    No draws, and a note that says so: a scorer that is defined on fewer than 8 of the subsets, and a scorer
    with the trait "costly" where a subset has more than 160 images.

    Args:
        replicates: subsets, 0 for no draws.

    Raises:
        UserError: two scorers of the same name.
    """
    names = [scorer.card.name for scorer in scorers]
    if len(set(names)) != len(names):
        raise UserError(f"a scorer is named twice: {', '.join(names)}", where="[selection]")
    scores: dict[str, float] = {}
    draws: dict[str, tuple[float | None, ...]] = {}
    spread: dict[str, Interval] = {}
    notes: list[str] = []
    images = evidence.labels.size
    subsets = half_samples(evidence.labels, replicates, evidence.seed) if evidence.regression is None else []
    half = subsets[0].size if subsets else 0
    with calm_blas(min(evidence.moments.n, evidence.moments.dim)):
        shared = whole(evidence)
        for scorer in scorers:
            try:
                scores[scorer.card.name] = _checked_score(scorer, shared.evidence_for(scorer))
            except TlcoreError as error:
                notes.append(f"{scorer.card.name}: {error.what}")
        repeated = []
        for scorer in scorers:
            if scorer.card.name not in scores or not replicates:
                continue
            reason = _not_redrawn(scorer, half, images)
            if reason:
                notes.append(f"{scorer.card.name}: no spread, {reason}")
            else:
                repeated.append(scorer)
    with calm_blas(half):
        redrawn = [_redrawn(repeated, subset) for subset in redraws(evidence, subsets)] if repeated else []
    for scorer in repeated:
        name = scorer.card.name
        drawn = tuple(row.get(name) for row in redrawn)
        defined = [value for value in drawn if value is not None]
        if len(defined) >= min(MINIMUM_REPLICATES, replicates) > 1:
            draws[name] = drawn
            spread[name] = jackknife_interval(scores[name], defined, images, half)
        else:
            notes.append(f"{name}: no spread, the score is not defined on subsets of the images")
    return Ranked(
        candidate=candidate.name,
        rank=None,
        scores=scores,
        spread=spread,
        draws=draws,
        draw_scale=draw_scale(images, half) if draws else 1.0,
        notes=tuple(notes),
        params=candidate.params,
        gmacs=candidate.gmacs,
        onnx_bytes=candidate.onnx_bytes,
        prior=candidate.prior,
        licence=candidate.licence,
        images_per_second=images_per_second,
        skipped=None if scores else "; ".join(notes) or "no scorer was asked",
    )


def left_out(candidate: Candidate, reason: str) -> Ranked:
    """The entry of a candidate that was never scored: unknown to timm, failed to load, …"""
    return Ranked(
        candidate=candidate.name,
        rank=None,
        params=candidate.params,
        gmacs=candidate.gmacs,
        onnx_bytes=candidate.onnx_bytes,
        prior=candidate.prior,
        licence=candidate.licence,
        skipped=reason,
    )


def rank(
    entries: Sequence[Ranked],
    *,
    scorers: Sequence[str],
    images: int,
    shortlist: int = SHORTLIST,
    prior_source: str = "",
) -> Ranking:
    """Order candidates by the panel, say how firm each place is, and name those that go on.

    Places, intervals of places and ties with the best are those of `tlcore.selection.panel`. Equal ranks
    keep the order of `entries`. Skipped candidates come last, without a rank. The shortlist is the best
    candidate and, in the order of the ranking, those that the images cannot tell from it, `shortlist` in
    all at most.

    The static prior is a baseline beside the panel and has no part in it: candidates by published accuracy
    where every ranked one has it, else by parameters, more first (those of unknown size get no place).

    Args:
        shortlist: candidates on the shortlist at most, 1 or more.
        prior_source: where published accuracies come from, for people.

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
    prior, prior_ranks = _static_prior(scored, prior_source)
    ranked = [
        entry.model_copy(
            update={
                "rank": standing.rank,
                "panel": standing.panel,
                "rank_interval": standing.rank_interval,
                "tied_with_best": standing.tied_with_best,
                "prior_rank": prior_rank,
            }
        )
        for entry, standing, prior_rank in zip(scored, standings(scored, scorers), prior_ranks, strict=True)
    ]
    ranked.sort(key=lambda entry: entry.rank or 0)
    rest = [
        entry.model_copy(update={"rank": None, "skipped": entry.skipped or "no score"})
        for entry in entries
        if entry.skipped is not None or not entry.scores
    ]
    level = [entry.candidate for entry in ranked if entry.tied_with_best]
    return Ranking(
        entries=tuple(chain(ranked, rest)),
        scorers=tuple(scorers),
        images=images,
        shortlist=tuple(level[: max(shortlist, 1)]),
        prior=prior,
    )


def _static_prior(scored: Sequence[Ranked], source: str) -> tuple[str, list[int | None]]:
    """What the prior is, and each candidate's place by it: 1 + the number of candidates with more."""
    values: list[float | None] = [entry.prior for entry in scored]
    name = f"ImageNet top-1 from {source}" if source else "ImageNet top-1"
    if any(value is None for value in values):
        values, name = [entry.params for entry in scored], "parameters"
    known = [value for value in values if value is not None]
    if not known:
        return "", [None] * len(scored)
    return name, [None if value is None else 1 + sum(other > value for other in known) for value in values]


def _not_redrawn(scorer: Scorer, half: int, images: int) -> str:
    """Why a scorer is not asked again on subsets; empty where it is. By sizes alone, never by a clock."""
    if not half:
        return "there are no class labels to take even subsets by"
    if half >= images:
        return "the score is not defined on subsets of the images"
    if "costly" in scorer.card.traits and half > COSTLY_ROWS:
        return f"its cost on subsets of more than {COSTLY_ROWS} images is too high"
    return ""


def _redrawn(scorers: Sequence[Scorer], subset: SharedEvidence) -> dict[str, float]:
    """The scores on one subset, of the scorers that are defined on it."""
    found = {}
    for scorer in scorers:
        try:
            found[scorer.card.name] = _checked_score(scorer, subset.evidence_for(scorer))
        except TlcoreError:
            continue
    return found


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

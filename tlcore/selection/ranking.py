"""From scores to a ranking, with the uncertainty of each score.

One candidate at a time: `score_candidate` asks every scorer and measures how much each score hangs on
the very images it was computed from. Then, over all candidates: `rank`. Nothing that one candidate or
one scorer does wrong ends the run; it is written down where the score would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import TlcoreError, UserError
from tlcore.protocols import Evidence, Scorer
from tlcore.selection.asking import Asked, ask, remarks
from tlcore.selection.blas import calm_blas
from tlcore.selection.panel import standings
from tlcore.selection.prior import static_prior
from tlcore.selection.redraws import SharedEvidence, redraws, whole
from tlcore.selection.subsets import draw_scale, half_samples, jackknife_interval, stratified
from tlcore.values import Candidate, Interval, Ranked, Ranking

__all__ = ["SHORTLIST", "left_out", "rank", "score_candidate"]

SHORTLIST = 3
"""Candidates at most that go on when they cannot be told from the best."""
COSTLY_ROWS = 160
"""Images of a subset, at most, that a scorer with the trait "costly" is asked about."""
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
    images at most), None where it is not defined there, and `draw_scale` the factor from deviations there to
    those over n new images (`tlcore.selection.subsets.draw_scale`), by how many images the scorer read: all,
    or as many as `Evidence.sample` gave it. A scorer with the trait "costly" gets 160 images at most of each
    subset. The subsets follow `evidence.seed` and the labels alone, so that they are the same for all
    candidates: `rank` compares candidates draw by draw. `spread` is a 95 % interval for the score over draws of as many images
    with the same class counts, by the delete-half jackknife (see `tlcore.selection.subsets`). A bootstrap
    with replacement will not do: it repeats images, and evidence takes a repeated image for a confirmed
    one, so that the whole interval lies above the score it belongs to.

    No draws, and a note that says so: fewer than 8 replicates, a scorer that is defined on fewer than 8 of the
    subsets, and a scorer with the trait "costly" where two images of each class are more than 160.

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
    read: dict[str, int] = {}
    scale: dict[str, float] = {}
    subsets = _subsets(evidence, replicates)
    half = subsets[0].size if subsets else 0
    with calm_blas(min(evidence.moments.n, evidence.moments.dim)):
        shared = whole(evidence)
        for scorer in scorers:
            try:
                asked = ask(scorer, shared.evidence_for(scorer))
                scores[scorer.card.name], read[scorer.card.name] = asked.score, asked.read
            except TlcoreError as error:
                notes.append(f"{scorer.card.name}: {error.what}")
        said = [line for one in scorers if one.card.name in scores for line in remarks(one, shared)]
    costly = _smaller(subsets, evidence)
    repeated = []
    for scorer in scorers:
        if scorer.card.name not in scores or not replicates:
            continue
        reason = _not_redrawn(scorer, subsets, costly, evidence.labels.size, replicates)
        if reason:
            notes.append(f"{scorer.card.name}: no spread, {reason}")
        else:
            repeated.append(scorer)
    redrawn: dict[str, list[Asked | None]] = {scorer.card.name: [] for scorer in repeated}
    rows, asked_on = _plan(repeated, subsets, costly)
    with calm_blas(half):
        for some, subset in zip(asked_on, redraws(evidence, rows), strict=True) if rows else ():
            for name, answer in _redrawn(some, subset).items():
                redrawn[name].append(answer)
    single = np.count_nonzero(np.bincount(evidence.labels) == 1) if repeated else 0
    for scorer in repeated:
        name = scorer.card.name
        defined = [one for one in redrawn[name] if one is not None]
        if len(defined) < MINIMUM_REPLICATES:
            notes.append(f"{name}: no spread, the score is not defined on subsets of the images")
            continue
        # A class of one image is in every subset: it varies nothing, and does not count.
        counts = (evidence.labels.size, half, read[name], max(one.read for one in defined))
        scale[name] = draw_scale(*(max(count - int(single), 1) for count in counts))
        draws[name] = tuple(None if one is None else one.score for one in redrawn[name])
        spread[name] = jackknife_interval(scores[name], [one.score for one in defined], scale[name])
    return Ranked(
        candidate=candidate.name,
        rank=None,
        scores=scores,
        spread=spread,
        draws=draws,
        draw_scale=scale,
        notes=(*notes, *said),
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
    prior, prior_ranks = static_prior(scored, prior_source)
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


def _subsets(evidence: Evidence, replicates: int) -> list[NDArray[np.intp]]:
    numbers = evidence.regression is not None and evidence.targets is None
    if numbers or replicates < MINIMUM_REPLICATES:
        return []
    return half_samples(evidence.labels, replicates, evidence.seed)


def _smaller(subsets: Sequence[NDArray[np.intp]], evidence: Evidence) -> list[NDArray[np.intp]]:
    """For costly scorers: of each subset `COSTLY_ROWS` images at most (but two of each class)."""
    return [
        rows[stratified(evidence.labels[rows], COSTLY_ROWS, evidence.seed + number)]
        for number, rows in enumerate(subsets)
    ]


def _not_redrawn(
    scorer: Scorer,
    subsets: Sequence[NDArray[np.intp]],
    costly: Sequence[NDArray[np.intp]],
    images: int,
    replicates: int,
) -> str:
    """Why a scorer is not asked again on subsets; empty where it is. By sizes alone, never by a clock."""
    if replicates < MINIMUM_REPLICATES:
        return f"fewer than {MINIMUM_REPLICATES} replicates"
    if not subsets:
        return "there are no class labels to take even subsets by"
    if subsets[0].size >= images:
        return "the score is not defined on subsets of the images"
    if "costly" in scorer.card.traits and costly[0].size > COSTLY_ROWS:
        return f"its cost on subsets of more than {COSTLY_ROWS} images is too high"
    return ""


def _plan(
    scorers: Sequence[Scorer], subsets: list[NDArray[np.intp]], costly: list[NDArray[np.intp]]
) -> tuple[list[NDArray[np.intp]], list[list[Scorer]]]:
    """All subsets, and for each the scorers that are asked on it; where both kinds are the same, none twice."""
    dear = [scorer for scorer in scorers if "costly" in scorer.card.traits]
    parts = [(subsets, [scorer for scorer in scorers if scorer not in dear]), (costly, dear)]
    if subsets and subsets[0].size == costly[0].size:
        parts = [(subsets, list(scorers))]
    pairs = [(rows, some) for all_rows, some in parts if some for rows in all_rows]
    return [rows for rows, _ in pairs], [some for _, some in pairs]


def _redrawn(scorers: Sequence[Scorer], subset: SharedEvidence) -> dict[str, Asked | None]:
    """The scores on one subset; None for a scorer that is not defined on it."""
    found: dict[str, Asked | None] = {}
    for scorer in scorers:
        try:
            found[scorer.card.name] = ask(scorer, subset.evidence_for(scorer))
        except TlcoreError:
            found[scorer.card.name] = None
    return found

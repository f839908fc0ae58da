"""The candidates of several model sources as one list, each with a name of its own."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from tlcore.models.results import Results, with_priors
from tlcore.values import Candidate

__all__ = ["list_candidates"]


def list_candidates(candidates: Iterable[Candidate], results: Results) -> tuple[Candidate, ...]:
    """`candidates` in order, with their published accuracies (`with_priors`).

    One candidate named twice counts once; one name with other weights gets a number.
    """
    found: dict[str, Candidate] = {}
    weights: dict[str, set[str]] = {}
    for candidate in candidates:
        known, kept = found.get(candidate.name), weights.setdefault(candidate.name, set())
        if known is None or (known.skipped and not candidate.skipped):
            found[candidate.name] = candidate
        elif not candidate.skipped and candidate.weights_sha256 not in kept:
            # One name, other weights: keep them apart, however many there are.
            name = next(free for n in count(2) if (free := f"{candidate.name}#{n}") not in found)
            found[name] = candidate.model_copy(update={"name": name})
        if not candidate.skipped:
            kept.add(candidate.weights_sha256)
    return with_priors(found.values(), results)

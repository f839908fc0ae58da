"""Asking a scorer: its score, how many images that read, and its remarks, whatever the scorer does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError, TlcoreError, UserError
from tlcore.protocols import Evidence, Scorer
from tlcore.selection.redraws import SharedEvidence

__all__ = ["Asked", "ask", "remarks"]


@dataclass(frozen=True)
class Asked:
    """A score, and the number of images that it was computed from."""

    score: float
    read: int


@dataclass(frozen=True)
class _Watched(Evidence):
    """Evidence that keeps count of the images it hands out as a sample."""

    sampled: list[int] = field(default_factory=list)

    def sample(self, limit: int) -> NDArray[np.int64]:
        rows = super().sample(limit)
        self.sampled.append(rows.size)
        return rows


def ask(scorer: Scorer, evidence: Evidence) -> Asked:
    """The score of `scorer` on `evidence`.

    Images read are those of the largest sample that it drew by `Evidence.sample`, else all.

    Raises:
        UserError: the score is not defined on this evidence.
        PluginError: the scorer raised something else, or returned what is no finite number.
    """
    name = scorer.card.name
    if "source-probabilities" in scorer.card.traits and evidence.moments.source_mass is None:
        raise UserError("needs a network with its source head, and this one has none")
    watched = _Watched(**{part.name: getattr(evidence, part.name) for part in fields(Evidence)})
    try:
        value = float(scorer.score(watched))
    except TlcoreError:
        raise
    except Exception as error:  # a plugin may raise anything, and must not end the run
        raise PluginError(f"the scorer failed: {type(error).__name__}: {error}", where=name) from error
    if not math.isfinite(value):
        raise PluginError(f"the scorer returned {value}, which is no score", where=name)
    return Asked(value, max(watched.sampled, default=evidence.labels.size))


def remarks(scorer: Scorer, shared: SharedEvidence) -> list[str]:
    """What `scorer` adds to the score that it gave, "NAME: …"; nothing that it does wrong ends the run.

    It is asked on the evidence that its score was asked for on: what it keeps of that it finds again.
    """
    name = scorer.card.name
    if type(scorer).remarks is Scorer.remarks:
        return []  # it has none
    try:
        found = scorer.remarks(shared.evidence_for(scorer))
        lines = [found] if isinstance(found, str) else found  # a comma forgotten
        return [f"{name}: {' '.join(str(line).split())}" for line in lines]
    except TlcoreError as error:
        return [f"{name}: no remarks, {error.what}"]
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return [f"{name}: no remarks, {type(error).__name__}: {error}"]

"""Heads solved from features of a frozen network: pure functions of a `HeadProblem`."""

from __future__ import annotations

from typing import Literal

from tlcore.training.directions import cosine_head, knn_head
from tlcore.training.gaussian import gda_head, mahalanobis_head
from tlcore.training.head_inputs import Standard
from tlcore.training.logistic import logistic_head
from tlcore.training.plan import HeadProblem, Solved
from tlcore.training.ridge import ridge_head, ridge_weights

__all__ = [
    "Standard", "gda_head", "knn_head", "logistic_head", "prototype_head", "ridge_head", "ridge_weights",
]  # fmt: skip


def prototype_head(problem: HeadProblem, *, metric: Literal["cosine", "mahalanobis"]) -> Solved:
    """The nearest class mean, by the cosine (`cosine_head`) or the Mahalanobis distance (`mahalanobis_head`)."""
    return cosine_head(problem) if metric == "cosine" else mahalanobis_head(problem)

"""A linear probe of CLIP features that starts from the class names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.head_inputs import few_threads, labelled, rotated
from tlcore.training.plan import HeadFit, HeadProblem, Solved, TrainPlan
from tlcore.training.text_tuner import (
    Prompts,
    TextTuner,
    in_shot_parts,
    log_softmax,
    text_classifier,
    unit_head,
    unit_rows,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tlcore.training.head_inputs import Labelled

    Float = NDArray[np.float64]

__all__ = ["ClipProbe", "change_of_weights", "clip_probe_head"]

PENALTIES = (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""From a head that hardly leaves the text to one that hardly knows it; beside them stands the text itself."""
UNTRIED = 0.01
"""Penalty where nothing can be held out."""


def change_of_weights(
    rows: Float, prior: Float, labels: NDArray[np.int64], penalty: float, start: Float | None = None
) -> Float:
    """W [K, d] that minimises sum_i -log softmax(prior_i + W z_i)[y_i] + penalty / 2 ||W||^2, by L-BFGS: a logistic
    regression beside fixed logits, convex, without a bias. Its rows sum to zero.

    Args:
        rows: z, float64 [n, d]. prior: logits float64 [n, K]. start: W to begin with; zero where None.
    """
    from scipy.optimize import minimize

    shape = prior.shape[1], rows.shape[1]
    truth = np.eye(shape[0])[labels]

    def loss(flat: Float) -> tuple[float, Float]:
        weight = flat.reshape(shape)
        logarithms = log_softmax(prior + rows @ weight.T)
        slope = (np.exp(logarithms) - truth).T @ rows + penalty * weight
        return float(penalty / 2 * (flat @ flat) - (logarithms * truth).sum()), slope.ravel()

    first = np.zeros(shape) if start is None else start
    found = minimize(
        loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10}
    )
    return np.asarray(found.x, dtype=np.float64).reshape(shape)


def clip_probe_head(
    problem: HeadProblem, *, prompts: Prompts, scale: float, penalty: float | None, folds: int
) -> Solved:
    """logits = scale cos(image, text) + W z, W of `change_of_weights` on unit features: a probe that starts from the text
    and is held to it (as in CLAP, Silva-Rodriguez et al. 2024, but with one penalty for all classes, cross-validated).

    penalty None: the one of 10 … 1e-5, or W = 0, with the least held-out log loss, by cross-validation within the
    labelled images; 0.01 where each class has a single image. A class without images keeps its text alone.

    Raises:
        UserError: fewer than two classes among the labels, features that do not vary; as `text_classifier`.
    """
    found = labelled(problem, "clip-probe")
    text = text_classifier(problem, prompts, scale)
    directions, labels = unit_rows(found.features), found.labels
    prior = directions @ text[found.present].T
    notes: dict[str, float] = {}
    with few_threads(directions.size):
        rows, axes, _ = rotated(directions)  # the solution lies in the span of the images
        if penalty is None:
            penalty, notes = _chosen(rows, prior, found, folds, problem.seed)
        change = np.zeros((prior.shape[1], rows.shape[1]))
        if np.isfinite(penalty):
            change = change_of_weights(rows, prior, labels, penalty)
            notes["penalty"] = penalty
    weight = text.copy()
    weight[found.present] += change @ axes.T
    return unit_head(weight, np.zeros(len(weight)), notes)


def _chosen(
    rows: Float, prior: Float, found: Labelled, folds: int, seed: int
) -> tuple[float, dict[str, float]]:
    """The penalty, infinite where the text alone is best, and {"cross_validated": 0 or 1, "log_loss": held out}."""
    labels = found.labels
    parts = in_shot_parts(labels, folds, seed, found.groups)
    if not parts:
        return UNTRIED, {"cross_validated": 0.0}
    grid = (float("inf"), *PENALTIES)
    losses, images = np.zeros(len(grid)), 0
    for train, held in parts:
        change, images = np.zeros((prior.shape[1], rows.shape[1])), images + len(held)
        for number, penalty in enumerate(grid):
            if np.isfinite(penalty):
                change = change_of_weights(rows[train], prior[train], labels[train], penalty, change)
            logits = prior[held] + rows[held] @ change.T
            losses[number] -= log_softmax(logits)[np.arange(len(held)), labels[held]].sum()
    best = int(losses.argmin())
    return grid[best], {"cross_validated": 1.0, "log_loss": float(losses[best] / images)}


class ClipProbe(TextTuner):
    """A logistic regression beside the zero-shot logits, held to them by a penalty that cross-validation chooses."""

    card: ClassVar[Card] = Card(
        name="clip-probe",
        summary="Linear probe that starts from the class names, its distance from them cross-validated; seconds",
        reference="Silva-Rodriguez, Hajimiri, Ben Ayed & Dolz 2024 (zero-shot initialised linear probe, CLAP)",
        traits=frozenset({"target-labels", "text"}),
    )

    penalty: float | None = Field(
        None,
        ge=1e-6,
        le=1e6,
        description="on the squared distance from the text; none: chosen within the labelled images",
    )
    folds: int = Field(
        5, ge=2, le=20, description="cross-validation folds; fewer where a class has fewer images"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        prompts = self.prompts(task)
        fit = partial(
            clip_probe_head, prompts=prompts, scale=self.scale, penalty=self.penalty, folds=self.folds
        )
        return TrainPlan((HeadFit("clip-probe", fit),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [ClipProbe]

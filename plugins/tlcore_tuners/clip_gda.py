"""Gaussian discriminant analysis of CLIP features, added to the zero-shot logits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.head_inputs import few_threads, labelled
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

__all__ = ["ClipGda", "clip_gda_head", "gaussian_head"]

ALPHAS = np.logspace(-4, 2, 7)
UNTRIED = 0.1
"""alpha where nothing can be held out: on made-up joint spaces better than the text alone at one image a class, where 1 is
not always."""


def gaussian_head(rows: Float, labels: NDArray[np.int64], classes: int) -> tuple[Float, Float]:
    """W = P mu_c [K, d], b = -mu_c P mu_c / 2 [K] of Gaussians with a shared covariance and equal priors (Wang et al. 2024,
    equations 3 and 4), P = d (S + tr(S) / (n - 1) I)^-1, S = sum (z - mu_y)(z - mu_y)^T (Kubokawa & Srivastava 2008).

    Where no image differs from its class's mean (one image a class) S says nothing: P = d / t I, t the total
    variance around the mean of all images.

    Args:
        rows: z, unit length, float64 [n, d]. labels: int64 [n], every one of 0 … K-1 among them.
    """
    n, d = rows.shape
    means = np.eye(classes)[labels].T @ rows / np.bincount(labels, minlength=classes)[:, None]
    around = rows - means[labels]
    scatter = float((around**2).sum())
    if scatter <= 1e-12 * n:
        total = float(((rows - rows.mean(0)) ** 2).sum()) / max(n - 1, 1)
        weight = d / total * means if total > 1e-12 else np.zeros_like(means)
    elif n < d:  # (A^T A + r I)^-1 M by the n x n matrix
        ridge = scatter / (n - 1)
        inner = np.linalg.solve(around @ around.T + ridge * np.eye(n), around @ means.T)
        weight = d * (means - (around.T @ inner).T) / ridge
    else:
        ridge = scatter / (n - 1)
        weight = d * np.linalg.solve(around.T @ around + ridge * np.eye(d), means.T).T
    return weight, -0.5 * (weight * means).sum(1)


def clip_gda_head(
    problem: HeadProblem, *, prompts: Prompts, scale: float, alpha: float | None, folds: int
) -> Solved:
    """logits = scale cos(image, text) + alpha (W z + b), W and b of `gaussian_head`, both views in one (Wang et al. 2024).

    alpha None: the one of 1e-4 … 1e2 with the best held-out accuracy, of equals the least held-out log loss, by
    cross-validation within the labelled images; 0.1 where each class has a single image. A class without images gets
    the mean of the others' W and b: for it the text alone speaks.

    Raises:
        UserError: fewer than two classes among the labels, features that do not vary; as `text_classifier`.
    """
    found = labelled(problem, "clip-gda")
    text = text_classifier(problem, prompts, scale)
    rows, present = unit_rows(found.features), len(found.present)
    if not np.ptp(rows, axis=0).max() > 1e-9:
        raise UserError("the features of all training images point the same way", where="clip-gda")
    notes: dict[str, float] = {}
    with few_threads(rows.size):
        if alpha is None:
            prior = rows @ text[found.present].T
            alpha, notes = _chosen(rows, prior, found, folds, problem.seed)
        weight, bias = gaussian_head(rows, found.labels, present)
    whole = np.tile(weight.mean(0), (len(problem.classes), 1))
    offset = np.full(len(problem.classes), bias.mean())
    whole[found.present], offset[found.present] = weight, bias
    return unit_head(text + alpha * whole, alpha * offset, {"alpha": alpha, **notes})


def _chosen(
    rows: Float, prior: Float, found: Labelled, folds: int, seed: int
) -> tuple[float, dict[str, float]]:
    """alpha and what was measured: {"cross_validated": 0 or 1, "held_out_accuracy", "log_loss"}."""
    labels, classes = found.labels, len(found.present)
    parts = in_shot_parts(labels, folds, seed, found.groups)
    if not parts:
        return UNTRIED, {"cross_validated": 0.0}
    right, loss, images = np.zeros(len(ALPHAS)), np.zeros(len(ALPHAS)), 0
    for train, held in parts:
        weight, bias = gaussian_head(rows[train], labels[train], classes)
        logits = prior[held] + ALPHAS[:, None, None] * (rows[held] @ weight.T + bias)  # [alphas, m, K]
        right += (logits.argmax(-1) == labels[held]).sum(1)
        loss -= log_softmax(logits)[:, np.arange(len(held)), labels[held]].sum(1)
        images += len(held)
    # Losses that differ by less than a thousandth an image say nothing: then the smaller weight.
    best = min(
        range(len(ALPHAS)), key=lambda number: (-right[number], round(float(loss[number]) / images, 3))
    )
    measured = {"held_out_accuracy": right[best] / images, "log_loss": loss[best] / images}
    return float(ALPHAS[best]), {"cross_validated": 1.0, **{k: float(v) for k, v in measured.items()}}


class ClipGda(TextTuner):
    """Closed form: class means and a shared covariance beside the class names; nothing is trained."""

    card: ClassVar[Card] = Card(
        name="clip-gda",
        summary="Gaussian discriminant analysis added to zero-shot logits, its weight cross-validated; seconds",
        reference="Wang, Liang, Sheng, He, Wang & Tan 2024, equations 3 and 4; Kubokawa & Srivastava 2008",
        traits=frozenset({"target-labels", "text"}),
    )

    alpha: float | None = Field(
        None,
        ge=1e-4,
        le=100,
        description="weight of the Gaussians beside the text; none: chosen within the labelled images",
    )
    folds: int = Field(
        5, ge=2, le=20, description="cross-validation folds; fewer where a class has fewer images"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        prompts = self.prompts(task)
        fit = partial(clip_gda_head, prompts=prompts, scale=self.scale, alpha=self.alpha, folds=self.folds)
        return TrainPlan((HeadFit("clip-gda", fit),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [ClipGda]

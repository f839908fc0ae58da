"""Heads that look at the direction of features from the centre of all images: class prototypes and neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcore.training.calibrated import class_scale
from tlcore.training.copies import of_several_labels, times
from tlcore.training.head_inputs import Float, Labelled, few_threads, labelled, widened
from tlcore.training.plan import Head, HeadProblem, Solved

__all__ = ["cosine_head", "knn_head"]

COUNTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)
TEMPERATURES = (0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 0.5)
BLOCK = 512
"""Images whose cosines with all others are held at once."""


def cosine_head(problem: HeadProblem) -> Solved:
    """The class whose mean direction is nearest: logits s z . p_k, z = (x - c) / |x - c|, p_k = m_k / |m_k|, m_k the mean
    of z over class k and c the mean of all features (Snell et al. 2017, section 2.3, with the cosine; centring: Wang et
    al. 2019, "SimpleShot", section 3). s is the scale with the least leave-one-out log loss, m_k without the image and its
    copies; only images of classes with two different ones or more are asked.

    Returns:
        a unit head; notes: "scale", "log_loss". A class without images has weight 0 and bias -30.

    Raises:
        UserError: fewer than two classes, or features that do not vary or are not finite.
    """
    known = labelled(problem, "prototype")
    with few_threads(problem.features.size):
        centre, unit = _directions(known)
        sums = np.stack([unit[known.labels == k].sum(0) for k in range(len(known.present))])
        cosines = unit @ _unit(sums).T
        own = _unit(sums[known.labels] - times(known.labels, known.groups)[:, None] * unit)
        cosines[np.arange(len(unit)), known.labels] = np.einsum("nd,nd->n", unit, own)
        for rows in of_several_labels(known.labels, known.groups):
            classes, copies = np.unique(known.labels[rows], return_counts=True)
            rest = _unit(sums[classes] - copies[:, None] * unit[rows[0]])
            cosines[np.ix_(rows, classes)] = rest @ unit[rows[0]]
        scale, loss = class_scale(cosines, known.labels, known.asked)
    weight, bias = widened(scale * _unit(sums), np.zeros(len(sums)), known.present, len(problem.classes))
    tensors = {"weight": weight, "bias": bias, "centre": centre}
    return Solved(tensors, Head(kind="unit"), {"scale": scale, "log_loss": loss})


def knn_head(
    problem: HeadProblem,
    *,
    neighbours: int | None,
    temperature: float | None,
    max_images: int,
    floor: float = 0.01,
) -> Solved:
    """The k nearest training images vote for their classes with weight exp(cosine / T) (Wu et al. 2018, section 3.4).

    k and T are those with the least leave-one-out log loss of the votes (with a share of `floor` spread over all
    classes) unless they are given; only images of classes with two or more are asked, and without any k is 1.
    Copies are left out together; a copy that is stored has a vote of its own.

    Args:
        max_images: images that are stored, the same share of each class, by the problem's seed; the rest is not used.

    Returns:
        a head of neighbours; notes: "neighbours", "temperature", "log_loss" where it was looked at.

    Raises:
        UserError: fewer than two classes, or features that do not vary or are not finite.
    """
    known = labelled(problem, "knn")
    if len(known.labels) > max_images:
        from tlcore.selection.subsets import stratified

        rows = stratified(known.labels, max_images, problem.seed)
        known = Labelled(
            known.features[rows], known.labels[rows], known.present,
            np.bincount(known.labels[rows], minlength=len(known.present)),
            None if known.groups is None else known.groups[rows],
        )  # fmt: skip
    with few_threads(problem.features.size):
        centre, unit = _directions(known)
        count, heat, loss = _choose(unit.astype(np.float32), known, neighbours, temperature, floor)
    votes = np.zeros((len(unit), len(problem.classes)))
    votes[np.arange(len(unit)), known.present[known.labels]] = 1
    head = Head(kind="neighbours", images=len(unit), neighbours=count, temperature=heat, floor=floor)
    notes = {"neighbours": float(count), "temperature": heat}
    if loss is not None:
        notes["log_loss"] = loss
    return Solved({"bank": unit, "votes": votes, "centre": centre}, head, notes)


def _directions(known: Labelled) -> tuple[Float, Float]:
    """The mean [d] of all features, and their directions from it [n, d]."""
    rows = known.features.astype(np.float64)
    centre = rows.mean(0)
    return centre, _unit(rows - centre)


def _unit(rows: Float) -> Float:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12), np.float64)


def _choose(
    unit: NDArray[np.float32],
    known: Labelled,
    neighbours: int | None,
    temperature: float | None,
    floor: float,
) -> tuple[int, float, float | None]:
    """k and T with the least leave-one-out log loss, and that loss; None where no image can be asked."""
    n = len(unit)
    asked = np.flatnonzero(known.asked)
    heats = TEMPERATURES if temperature is None else (temperature,)
    if not len(asked):
        return min(neighbours or 1, n), temperature or 0.07, None
    counts = [k for k in COUNTS if k < n] if neighbours is None else [min(neighbours, n - 1)]
    losses = np.zeros((len(counts), len(heats)))
    for start in range(0, len(asked), BLOCK):
        part = asked[start : start + BLOCK]
        cosines = unit[part] @ unit.T
        if known.groups is None:
            cosines[np.arange(len(part)), part] = -np.inf
        else:
            cosines[known.groups[part][:, None] == known.groups] = -np.inf
        nearest = np.argpartition(-cosines, max(counts) - 1, axis=1)[:, : max(counts)]
        near = np.take_along_axis(cosines, nearest, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        near, nearest = np.take_along_axis(near, order, 1), np.take_along_axis(nearest, order, 1)
        right = known.labels[nearest] == known.labels[part][:, None]
        for column, heat in enumerate(heats):
            weight = np.exp((near - near[:, :1]).astype(np.float64) / heat)
            voted, total = np.cumsum(weight * right, 1), np.cumsum(weight, 1)
            for row, count in enumerate(counts):
                share = voted[:, count - 1] / total[:, count - 1]
                losses[row, column] -= np.log((1 - floor) * share + floor / len(known.present)).sum()
    row, column = divmod(int(losses.argmin()), len(heats))
    return counts[row], heats[column], float(losses[row, column] / len(asked))

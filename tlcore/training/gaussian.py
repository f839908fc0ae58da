"""Heads of Gaussian classes that share one covariance matrix, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcore.training.calibrated import class_scale
from tlcore.training.copies import of_several_labels, times
from tlcore.training.head_inputs import Float, Labelled, Standard, few_threads, labelled, rotated, widened
from tlcore.training.plan import HeadProblem, Solved

__all__ = ["gda_head", "mahalanobis_head"]


def gda_head(problem: HeadProblem, *, shrinkages: int) -> Solved:
    """Gaussian discriminant analysis: W = S_a^-1 mu_k, b = -mu_k^T S_a^-1 mu_k / 2 + log(n_k / n).

    mu_k are the class means of the centred features, in one unit for all of them, and S_a = (1 - a) S + a tr(S) / d I
    their shared covariance, shrunk toward the identity (Wang et al. 2024, "A hard-to-beat baseline for training-free
    CLIP-based adaptation", with a / (1 - a) = d / (n - 1) and no prior). a is the one with the least leave-one-out log
    loss, a / (1 - a) from a log-spaced grid of 1e-3 … 1e3; for each a the distances have the scale that is best for
    it. Leaving an image out changes the mean of its class and takes b u u^T from the scatter matrix, so that all n
    fits are had from one decomposition (Sherman & Morrison 1950). Copies are left out together, and only images of classes
    with two different ones or more are asked; without any, a is the paper's, n the different images.

    Returns:
        a linear head [K, d], [K]; notes: "shrinkage" (a), "scale" of the distances, 1 for the plain model, and
        "log_loss". A class without images has weight 0 and bias -30.

    Raises:
        UserError: fewer than two classes, or features that do not vary or are not finite.
    """
    known = labelled(problem, "gda")
    with few_threads(problem.features.size):
        shared = _Shared.of(known)
        prior = np.log(known.counts / known.counts.sum())
        asked, d = known.asked, known.features.shape[1]
        grid = (
            np.logspace(-3, 3, shrinkages)
            if asked.any() and shrinkages > 1
            else np.array([d / max(known.images - 1, 1)])
        )
        found = []
        for ratio in grid:
            scale, loss = class_scale(shared.left_out(ratio), known.labels, asked, prior)
            found.append((loss, float(ratio), scale))
        loss, ratio, scale = min(found)
        weight, bias = shared.head(ratio)
    whole = widened(scale * weight, scale * bias + prior, known.present, len(problem.classes))
    return _solved(*whole, shrinkage=ratio / (1 + ratio), scale=scale, log_loss=loss)


def mahalanobis_head(problem: HeadProblem) -> Solved:
    """The nearest class mean by (x - mu_k)^T S_a^-1 (x - mu_k), all classes equally likely: `gda_head` with the shrinkage
    of Ledoit & Wolf 2004, for which copies count once, and no prior. The distances have the scale with the least
    leave-one-out log loss."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    known = labelled(problem, "prototype")
    with few_threads(problem.features.size):
        shared = _Shared.of(known)
        share = 1.0
        if shared.within > 0:
            share = float(ledoit_wolf_shrinkage(shared.deviations(known)[known.once], assume_centered=True))
        ratio = share / max(1 - share, 1e-6)
        scale, loss = class_scale(shared.left_out(ratio), known.labels, known.asked)
        weight, bias = shared.head(ratio)
    whole = widened(scale * weight, scale * bias, known.present, len(problem.classes))
    return _solved(*whole, shrinkage=share, scale=scale, log_loss=loss)


def _solved(weight: Float, bias: Float, **notes: float) -> Solved:
    return Solved({"weight": weight, "bias": bias}, notes=notes)


@dataclass(frozen=True)
class _Shared:
    """Centred images and class means in the principal axes of their scatter within classes.

    rows [n, r], means [P, r], spread [r]: the scatter along each axis; axes [d, r]. With n < d, r < n: all of them lie
    in the row space, and nothing is lost. within: tr(scatter) / d; 0 where each class has one image or equal ones.
    times [n]: copies of an image under its label, itself among them. torn: rows of copies that disagree about it.
    """

    rows: Float
    means: Float
    spread: Float
    axes: Float
    standard: Standard
    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    within: float
    times: NDArray[np.int64]
    torn: list[NDArray[np.intp]]

    @classmethod
    def of(cls, known: Labelled) -> _Shared:
        standard = Standard.of(known.features, common=True)
        rows = standard.apply(known.features)
        width = rows.shape[1]
        axes = None
        if len(rows) < width:
            rows, axes, _ = rotated(rows)
        means = np.stack([rows[known.labels == k].mean(0) for k in range(len(known.present))])
        apart = rows - means[known.labels]
        spread, turn = np.linalg.eigh(apart.T @ apart)
        spread = np.maximum(spread, 0)
        within = float(spread.sum()) / width
        if within <= 1e-12 * float(np.square(rows).sum()) / width:
            spread, within = np.zeros_like(spread), 0.0
        axes = turn if axes is None else axes @ turn
        return cls(
            rows @ turn, means @ turn, spread, axes, standard, known.labels, known.counts, within,
            times(known.labels, known.groups), of_several_labels(known.labels, known.groups),
        )  # fmt: skip

    def deviations(self, known: Labelled) -> Float:
        """Centred features less their class means, [n, d]."""
        rows = self.standard.apply(known.features)
        return np.asarray(rows - (self.means @ self.axes.T)[known.labels])

    def head(self, ratio: float) -> tuple[Float, Float]:
        """W = S_a^-1 mu and b = -mu^T S_a^-1 mu / 2 on the raw features, a / (1 - a) = ratio."""
        scaled = self.means * self._precision(ratio)
        bias = -(scaled * self.means).sum(1) / 2
        return self.standard.unfold(scaled @ self.axes.T, bias)

    def left_out(self, ratio: float) -> Float:
        """-1/2 of the squared distances [n, P] of each image from the class means by the other images.

        With A = S + t I, u_i = x_i - mu_c of the own class c of m images, r of them copies of i (itself, mostly),
        a = m / (m - r), b = r a and q = u^T A^-1 u, the scatter without them is A - b u u^T, and so the distance from
        another class is |x - mu_k|^2 + b ((x - mu_k)^T A^-1 u)^2 / (1 - b q) and that from the own one
        a^2 q / (1 - b q). t is left as it is.
        """
        precision = self._precision(ratio)
        own = self.counts[self.labels]
        more = np.where(own > self.times, own / np.maximum(own - self.times, 1), 1.0)
        part = (self.times * more / len(self.rows) / (1 + ratio))[:, None]  # b, in units of S_a instead of A
        apart = self.rows - self.means[self.labels]
        scaled = self.rows * precision
        plain = (scaled * self.rows).sum(1)[:, None] - 2 * scaled @ self.means.T
        plain += ((self.means * precision) * self.means).sum(1)
        along = (scaled * apart).sum(1)[:, None] - (apart * precision) @ self.means.T
        q = ((apart * precision) * apart).sum(1)[:, None]
        room = np.maximum(1 - part * q, 1e-9)
        distance = plain + part * along**2 / room
        distance[np.arange(len(self.rows)), self.labels] = (more[:, None] ** 2 * q / room)[:, 0]
        for rows in self.torn:
            distance[rows] = self._without(rows, precision, ratio)
        return np.asarray(-distance / 2)

    def _without(self, rows: NDArray[np.intp], precision: Float, ratio: float) -> Float:
        """Squared distances [P] of an image from the class means without its copies `rows`, of several classes: as in
        `left_out`, with one u for each of them (Woodbury 1950)."""
        x = self.rows[rows[0]]
        own, copies = np.unique(self.labels[rows], return_counts=True)
        more = self.counts[own] / np.maximum(self.counts[own] - copies, 1)
        apart = x - self.means
        taken = np.sqrt(copies * more / len(self.rows) / (1 + ratio))[:, None] * apart[own]
        apart[own] *= more[:, None]
        along = (apart * precision) @ taken.T
        room = (1 + 1e-9) * np.eye(len(own)) - (taken * precision) @ taken.T
        return np.asarray((apart**2) @ precision + (along * np.linalg.solve(room, along.T).T).sum(1))

    def _precision(self, ratio: float) -> Float:
        """The eigenvalues [r] of S_a^-1; without any scatter S_a is the identity."""
        if self.within == 0:
            return np.ones_like(self.spread)
        n = len(self.rows)
        return np.asarray((1 + ratio) * n / (self.spread + ratio * self.within))

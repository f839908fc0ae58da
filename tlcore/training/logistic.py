"""Multinomial logistic regression with the penalty chosen by cross-validation, on features of a frozen network.

All folds are fitted at once, as columns of one matrix product, by L-BFGS in units in which the loss is about equally
curved along each principal axis of the features, of which there are no more than images. The search
for the penalty is in float32 and ends early; the fit that is returned is in float64 and converged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import PluginError, UserError
from tlcore.training.copies import copies_in, different, held_out_parts
from tlcore.training.head_inputs import Float, Standard, few_threads, rotated, widened
from tlcore.training.plan import HeadProblem

__all__ = ["logistic_head"]

ON_THE_WAY = {"gtol": 1e-4, "ftol": 1e-4}
HALF_WAY, AT_THE_END = {"gtol": 3e-5, "ftol": 1e-7}, {"gtol": 1e-5, "ftol": 0.0}
"""gtol: largest slope of the mean loss in units of equal curvature, where half its square is about what the loss can
still fall. ftol: what a step takes off the loss, as a share of it."""
CLEARLY, RISES = 1.005, 3
"""The search turns where the held-out loss is so many times the least one, or has not fallen so many times in a row."""
AT_ONCE = 20_000_000
"""Logits of all folds together that are held in memory; more are fitted fold by fold."""


def logistic_head(
    problem: HeadProblem,
    *,
    penalties: int,
    folds: int,
    weights: NDArray[np.floating] | None = None,
    common_scale: bool = False,
) -> tuple[Float, Float, Mapping[str, float]]:
    """Multinomial logistic regression, L2 penalty chosen by stratified cross-validation on the log loss.

    Minimises sum_i v_i (-log softmax(W x_i + b)[y_i]) + ||W||^2 / (2 C) over standardised features x; C from a
    log-spaced grid 1e-4 … 1e2 by the mean held-out log loss, copies of an image held out together, from the middle on
    to either side until that rises clearly. With two classes ||W||^2 is that of the difference of their weights, as
    in scikit-learn.

    Args:
        problem: features float32 [n, d], labels int64 [n].
        weights: v, float [n]: how often each image counts, in the standardisation and the held-out loss too; an
            image of weight 0 is left out. None: each counts once.
        common_scale: one scale for all features instead of one each, so that the head depends on the lengths of
            coordinates and not on their axes (`Standard.of`).

    Returns:
        weight [K, d], bias [K], {"penalty": 1 / C, "log_loss": held out}. A class without images keeps a
        weight of zero and a bias of -30: it is never predicted.

    Raises:
        UserError: fewer than two classes among the labels.
        PluginError: weights that are none: negative, not finite, or not one per image.
    """
    features, targets, groups = problem.features, problem.labels, copies_in(problem)
    if weights is not None:
        counted = np.asarray(weights, dtype=np.float64)
        if counted.shape != targets.shape or not np.isfinite(counted).all() or counted.min(initial=0) < 0:
            raise PluginError(
                f"the weights of {len(targets)} images are {list(counted.shape)}, or not numbers >= 0"
            )
        kept = counted > 0
        features, targets, weights = features[kept], targets[kept], counted[kept]
        groups = None if groups is None else groups[kept]
    present, labels = np.unique(targets, return_inverse=True)
    if len(present) < 2:
        raise UserError("a classifier needs at least two classes among the training labels")
    standardisation = Standard.of(features, weights, common=common_scale)
    mass = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    with few_threads(features.size):
        rows, axes = standardisation.apply(features), None
        if (
            len(rows) < rows.shape[1] or len(present) > 2
        ):  # with one logit the rotation costs more than it saves
            rows, axes, _ = rotated(rows)
        fits = _Fits(rows, labels, len(present))
        splits = min(folds, int(different(labels, groups).min()))
        grid = np.logspace(-4, 2, penalties) if penalties > 1 else np.array([1.0])
        best, notes, start = float(grid[len(grid) // 2]), {}, fits.zero(1)
        held = held_out_parts(labels, groups, splits, problem.seed) if splits >= 2 and len(grid) > 1 else []
        if held:
            best, loss, start = _search(fits, mass, grid, held)
            notes["log_loss"] = loss
        start = fits.single_precision().fit(mass[None], best, start, HALF_WAY)
        found = fits.fit(mass[None], best, start.astype(np.float64), AT_THE_END)[:, 0]
    if len(present) == 2:  # one logit for the second class; as two, its sign is shared
        found = np.vstack([-found, found]) / 2
    solved = found[:, :-1] if axes is None else found[:, :-1] @ axes.T
    weight, bias = widened(
        *standardisation.unfold(solved, found[:, -1]), present, len(problem.classes), balanced=False
    )
    return weight, bias, {"penalty": 1 / best, **notes}


def _search(
    fits: _Fits, mass: Float, grid: Float, held: list[NDArray[np.intp]]
) -> tuple[float, float, Float]:
    """The strength C with the least held-out loss, that loss, and a start for the fit to all images [k, 1, r + 1].
    held: positions of each part."""
    train = np.repeat(mass[None], len(held), axis=0)
    for fold, test in enumerate(held):
        train[fold, test] = 0
    rough = fits.single_precision()
    first = len(grid) // 2
    known: dict[int, tuple[float, Float]] = {}

    def look(place: int, start: Float) -> None:
        found = rough.fit_each(train, float(grid[place]), start)
        losses = [rough.loss(test, mass[test], found[:, fold]) for fold, test in enumerate(held)]
        known[place] = (float(np.mean(losses)), found)

    def best() -> int:
        return min(known, key=lambda place: (known[place][0], place))

    look(first, rough.zero(len(held)))
    for way in (range(first + 1, len(grid)), range(first - 1, -1, -1)):
        last, rises = first, 0
        for place in way:
            look(place, known[last][1])
            last, rises = place, 0 if best() == place else rises + 1
            if rises == RISES or known[place][0] > CLEARLY * known[best()][0]:
                break
        if best() != first:
            break
    loss, found = known[best()]
    return float(grid[best()]), loss, found.mean(1, keepdims=True)


@dataclass(frozen=True)
class _Fits:
    """Regressions on the same rows [n, r] with the labels [n] in 0 … K-1, in the precision of the rows.

    Parameters of F of them are [k, F, r + 1], the last of each for the bias; k = K, or 1 for the second of two classes,
    where the first has logit 0.
    """

    rows: Float
    labels: NDArray[np.int64]
    classes: int

    def single_precision(self) -> _Fits:
        return replace(self, rows=self.rows.astype(np.float32))

    def zero(self, count: int) -> Float:
        logits = 1 if self.classes == 2 else self.classes
        return np.zeros((logits, count, self.rows.shape[1] + 1), self.rows.dtype)

    def loss(self, rows: NDArray[np.intp], mass: Float, parameters: Float) -> float:
        """Mean log loss of some of the images by parameters [k, r + 1]."""
        logits = _shifted(self.rows[rows], parameters[:, None])[:, 0]
        own = logits[self.labels[rows], np.arange(len(rows))]
        return float(np.average(np.log(np.exp(logits).sum(0)) - own, weights=mass))

    def fit_each(self, mass: Float, strength: float, start: Float) -> Float:
        """`fit` on the way, as many at once as memory allows."""
        parts = math.ceil(mass.size * self.classes / AT_ONCE)
        groups = np.array_split(np.arange(len(mass)), min(parts, len(mass)))
        fitted = [self.fit(mass[group], strength, start[:, group], ON_THE_WAY) for group in groups]
        return np.concatenate(fitted, axis=1)

    def fit(self, mass: Float, strength: float, start: Float, until: Mapping[str, float]) -> Float:
        """Minimise sum_i mass_fi loss_i(W_f, b_f) + ||W_f||^2 / (2 C) for each f.

        mass: [F, n]. start: [k, F, r + 1].
        """
        from scipy.optimize import minimize

        kind = self.rows.dtype
        images = float(mass.sum(1).mean())
        loss = _Loss(
            self.rows, self.labels, (mass / images).astype(kind), 1 / strength / images, np.ones(1, kind)
        )
        raised = np.exp(_shifted(self.rows, start))
        chances = raised / raised.sum(0)
        curvature = max(float((chances * (1 - chances)).mean()), 1e-6)
        extent = np.einsum("nr,nr->r", self.rows, self.rows) / len(self.rows)
        loss.unit = np.sqrt(np.append(curvature * extent + loss.penalty, curvature)).astype(kind)
        found = minimize(
            loss, (start * loss.unit).ravel().astype(np.float64), jac=True, method="L-BFGS-B",
            options={"maxiter": 2000, "maxfun": 4000, "maxcor": 5, **until},
        )  # fmt: skip
        return np.asarray(found.x.astype(kind).reshape(start.shape) / loss.unit)


@dataclass
class _Loss:
    """The loss of `_Fits.fit` over the mean mass of a fit, and its slope, in units u = unit * parameters."""

    rows: Float
    labels: NDArray[np.int64]
    mass: Float
    penalty: float
    unit: Float

    def __call__(self, flat: Float) -> tuple[float, Float]:
        every = np.arange(len(self.rows))
        parameters = flat.astype(self.rows.dtype).reshape(-1, len(self.mass), len(self.unit)) / self.unit
        logits = _shifted(self.rows, parameters)
        own = logits[self.labels, :, every].T
        error = np.exp(logits, out=logits)
        total = error.sum(0)
        slopes = parameters[..., :-1]
        value = float((self.mass * (np.log(total) - own)).sum(dtype=np.float64))
        value += 0.5 * self.penalty * float(np.square(slopes).sum(dtype=np.float64))
        error *= self.mass / total
        error[self.labels, :, every] -= self.mass.T
        if len(parameters) == 1:
            error = error[1:]
        gradient = np.empty_like(parameters)
        gradient[..., :-1] = (error.reshape(-1, len(self.rows)) @ self.rows).reshape(slopes.shape)
        gradient[..., :-1] += slopes.dtype.type(self.penalty) * slopes
        gradient[..., -1] = error.sum(2)
        gradient /= self.unit
        return value, gradient.ravel().astype(np.float64)


def _shifted(rows: Float, parameters: Float) -> Float:
    """Logits [K, F, n] less the largest of each image."""
    flat = parameters.reshape(-1, parameters.shape[2])
    logits = flat[:, :-1] @ rows.T + flat[:, -1:]
    logits = logits.reshape(*parameters.shape[:2], len(rows))
    if len(logits) == 1:
        logits = np.concatenate([np.zeros_like(logits), logits])
    logits -= logits.max(0)
    return np.asarray(logits)

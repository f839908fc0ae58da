"""Subspace alignment: the source's principal axes are turned onto the target's, then the head is fitted there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError, UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.plan import HeadFit, HeadProblem, TrainPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def principal_axes(rows: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    """The leading principal axes of rows [n, d] of zero mean as orthonormal columns, [d, min(dimensions, rank)]."""
    import numpy as np

    if len(rows) < rows.shape[1]:
        _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    else:
        variance, columns = np.linalg.eigh(rows.T @ rows)
        singular, axes = np.sqrt(np.maximum(variance[::-1], 0)), columns.T[::-1]
    rank = int((singular > 1e-6 * max(float(singular[0]), 1e-12)).sum())
    return np.asarray(axes[: min(dimensions, rank)].T)


def subspace_head(
    problem: HeadProblem, *, dimensions: int, penalties: int, folds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Mapping[str, float]]:
    """The head for raw target features [K, d], [K] (Fernando et al. 2013, eq. 1 to 4).

    With P_s, P_t the principal axes of the domains, each standardised by its own statistics, the head W, b is a
    logistic regression on the aligned source coordinates X_s P_s M, M = P_s^T P_t, which is the M with the least
    ||P_s M - P_t||_F. For the target's coordinates X_t P_t it is folded back to W P_t^T on X_t. The coordinates keep
    their lengths (`common_scale`): the later axes are mostly noise.

    Raises:
        PluginError: no target features.
        UserError: fewer than two images of a domain, features that do not vary, or fewer than two classes.
    """
    import numpy as np

    from tlcore.training.heads import Standard, logistic_head

    if problem.target is None:
        raise PluginError("subspace-alignment needs the target's features")
    if min(len(problem.features), len(problem.target)) < 2:
        raise UserError("principal axes take at least two images of each domain", where="subspace-alignment")
    own, other = Standard.of(problem.features), Standard.of(problem.target)
    source = own.apply(problem.features)
    axes = principal_axes(source, dimensions), principal_axes(other.apply(problem.target), dimensions)
    count = min(part.shape[1] for part in axes)
    if not count:
        raise UserError("the features of a domain do not vary", where="subspace-alignment")
    from_axes, onto_axes = (part[:, :count] for part in axes)
    aligned = source @ from_axes @ (from_axes.T @ onto_axes)
    weight, bias, notes = logistic_head(
        replace(problem, features=aligned.astype(np.float32)),
        penalties=penalties,
        folds=folds,
        common_scale=True,
    )
    return *other.unfold(weight @ onto_axes.T, bias), {**notes, "dimensions": float(count)}


class SubspaceAlignment(Adapter):
    """Principal axes of the source turned onto those of the target, and a head in the target's subspace."""

    card: ClassVar[Card] = Card(
        name="subspace-alignment",
        summary="Closed form: the source's principal axes turned onto the target's, then a head on them; seconds",
        reference="Fernando et al. 2013, eq. 1 to 4",
        traits=frozenset({"source-data", "target-data", "target-only"}),
    )

    dimensions: int = Field(
        40,
        ge=1,
        le=8192,
        description="principal axes that are kept of each domain; fewer where there are fewer",
    )
    penalties: int = Field(
        7, ge=1, le=50, description="penalty strengths of the head tried, log-spaced from 1e-4 to 1e2"
    )
    folds: int = Field(
        5, ge=2, le=20, description="cross-validation folds; fewer where a class has fewer images"
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        fit = partial(subspace_head, dimensions=self.dimensions, penalties=self.penalties, folds=self.folds)
        return TrainPlan((HeadFit("subspace-alignment", fit),))


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [SubspaceAlignment]

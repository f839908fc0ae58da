"""Checks of what goes into a score; every error names the rows that are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcore.errors import UserError

__all__ = ["check_features", "checked_labels", "checked_probabilities", "checked_targets"]

BATCH = 2048
"""Rows that are looked at together: a memory map is never read as a whole."""


def check_features(features: NDArray[Any], *, first_row: int = 0, where: str = "") -> None:
    """Raise UserError unless `features` is a numeric [n, D] array of finite values with n, D > 0.

    Rows with NaN or infinity are named; their numbers start at `first_row`.
    """
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind not in "fiu":
        raise UserError(
            f"features must be a table of numbers with at least one row and one column, not {features.dtype} of "
            f"shape {features.shape}",
            where=where,
        )
    for start in range(0, len(features), BATCH):
        part = features[start : start + BATCH]
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            # Only now look at the rest: the error should name the first rows of the whole array.
            wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
            raise UserError(f"features are NaN or infinite in {_rows(wrong, first_row)}", where=where)


def checked_probabilities(probabilities: ArrayLike, n: int, *, first_row: int = 0) -> NDArray[np.float64]:
    """Probabilities [n, Z] as float64; UserError unless each row is non-negative and sums to 1 within 1e-3."""
    mass = np.asarray(probabilities, dtype=np.float64)
    if mass.ndim != 2 or len(mass) != n or mass.shape[1] == 0:
        raise UserError(f"{n} rows of features, but source probabilities of shape {mass.shape}")
    # A NaN fails both comparisons, so it is caught here too.
    sound = (mass >= 0).all(axis=1) & (np.abs(mass.sum(axis=1) - 1) <= 1e-3)
    if not sound.all():
        wrong = _rows(np.flatnonzero(~sound), first_row)
        raise UserError(f"source probabilities are negative or do not sum to 1 in {wrong}")
    return mass


def checked_labels(labels: ArrayLike, n: int, classes: int, *, first_row: int = 0) -> NDArray[np.int64]:
    """Encoded labels [n] as int64; UserError unless each is one of 0 … classes-1."""
    codes = np.asarray(labels)
    if codes.shape != (n,):
        raise UserError(f"{n} rows of features, but labels of shape {codes.shape}")
    if codes.dtype.kind not in "iu":
        raise UserError(
            f"labels must be encoded as whole numbers, not {codes.dtype}",
            hint="encode class names by their place in the sorted list of classes",
        )
    wrong = np.flatnonzero((codes < 0) | (codes >= classes))
    if wrong.size:
        raise UserError(
            f"labels outside 0 … {classes - 1} in {_rows(wrong, first_row)}",
            hint="leave rows without a label out; scores need labelled images",
        )
    return codes.astype(np.int64)


def checked_targets(targets: ArrayLike, n: int) -> NDArray[np.float64]:
    """Real-valued targets [n] or [n, T] as float64 [n, T]; UserError unless all are finite numbers."""
    found = np.asarray(targets)
    if found.ndim not in (1, 2) or len(found) != n or 0 in found.shape or found.dtype.kind not in "fiu":
        raise UserError(f"{n} rows of features, but targets of {found.dtype} and shape {found.shape}")
    exact = found.reshape(n, -1).astype(np.float64)
    finite = np.isfinite(exact).all(axis=1)
    if not finite.all():
        raise UserError(f"targets are NaN or infinite in {_rows(np.flatnonzero(~finite), 0)}")
    return exact


def _rows(wrong: NDArray[np.intp], first_row: int) -> str:
    named = ", ".join(str(row + first_row) for row in wrong[:5])
    more = f" and {wrong.size - 5} more" if wrong.size > 5 else ""
    return f"{'row' if wrong.size == 1 else 'rows'} {named}{more}"

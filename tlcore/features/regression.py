"""Sufficient statistics of features and real-valued targets, which add across shards.

The same sums about a shift as in `tlcore.features.moments`, and for the targets too, so that neither a
feature nor a target far from zero loses digits. With d = c - c' and e = t - t':

    sum (f - c')(y - t')^T = X + s e^T + d r^T + n d e^T        (X, s, r: the sums about c and t)
"""

from __future__ import annotations

import functools
import operator
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcore.errors import UserError
from tlcore.features.rows import check_features, checked_targets

__all__ = ["RegressionMoments"]

Float = NDArray[np.float64]
BATCH = 2048
"""Rows that are taken to float64 at once: bounds memory without slowing the matrix products."""


@dataclass(frozen=True, eq=False)
class RegressionMoments:
    """Sums over n images with D features and T real targets.

    Attributes:
        n: images.
        shift: [D], the point c that feature sums are taken about.
        target_shift: [T], the point t that target sums are taken about.
        shifted_sum: [D], sum of f - c.
        shifted_gram: [D, D], sum of (f - c)(f - c)^T.
        shifted_target_sum: [T], sum of y - t.
        shifted_target_squares: [T], sum of (y - t)^2.
        shifted_cross: [D, T], sum of (f - c)(y - t).

    The arrays are read-only, so that no scorer can change what the next one sees.
    """

    n: int
    shift: Float
    target_shift: Float
    shifted_sum: Float
    shifted_gram: Float
    shifted_target_sum: Float
    shifted_target_squares: Float
    shifted_cross: Float

    def __post_init__(self) -> None:
        for array in self._arrays().values():
            array.flags.writeable = False

    @classmethod
    def of(
        cls,
        features: ArrayLike,
        targets: ArrayLike,
        *,
        shift: ArrayLike | None = None,
        target_shift: ArrayLike | None = None,
    ) -> RegressionMoments:
        """Moments of features [n, D] and targets [n] or [n, T]; shifts default to the means of the first rows.

        Raises:
            UserError: shapes that do not match; NaN or infinite features or targets (rows named).
        """
        rows = np.asarray(features)
        check_features(rows)
        wanted = checked_targets(targets, len(rows))
        centre = rows[:BATCH].mean(axis=0, dtype=np.float64) if shift is None else np.array(shift, np.float64)
        middle = wanted[:BATCH].mean(axis=0) if target_shift is None else np.array(target_shift, np.float64)
        if centre.shape != rows.shape[1:] or middle.shape != wanted.shape[1:]:
            raise UserError(
                f"shifts of shape {centre.shape} and {middle.shape} for {rows.shape[1]} features and "
                f"{wanted.shape[1]} targets"
            )
        parts = []
        for start in range(0, len(rows), BATCH):
            x = rows[start : start + BATCH].astype(np.float64) - centre
            y = wanted[start : start + BATCH] - middle
            parts.append(cls(len(x), centre, middle, x.sum(0), x.T @ x, y.sum(0), (y**2).sum(0), x.T @ y))
        return cls.merge(parts)

    def __add__(self, other: RegressionMoments) -> RegressionMoments:
        """Moments of both sets of images together; the shifts are the left one's."""
        if not isinstance(other, RegressionMoments):
            return NotImplemented
        if self.shifted_cross.shape != other.shifted_cross.shape:
            raise UserError(
                f"moments of {self.dim} features and {self.targets} targets cannot be added to moments of "
                f"{other.dim} features and {other.targets} targets"
            )
        ours, theirs = self._arrays(), other.rebased(self.shift, self.target_shift)._arrays()
        kept = ("shift", "target_shift")
        sums = {name: ours[name] if name in kept else ours[name] + theirs[name] for name in ours}
        return RegressionMoments(n=self.n + other.n, **sums)

    @staticmethod
    def merge(shards: Iterable[RegressionMoments]) -> RegressionMoments:
        """Sum of at least one shard."""
        shards = list(shards)
        if not shards:
            raise UserError("no moments to merge: the list of shards is empty")
        return functools.reduce(operator.add, shards)

    def rebased(self, shift: ArrayLike, target_shift: ArrayLike) -> RegressionMoments:
        """The same moments about other points, [D] and [T]."""
        point, aim = np.array(shift, dtype=np.float64), np.array(target_shift, dtype=np.float64)
        step, turn = self.shift - point, self.target_shift - aim
        if not (step.any() or turn.any()):
            return self
        half = np.outer(self.shifted_sum + self.n / 2 * step, step)
        return RegressionMoments(
            n=self.n,
            shift=point,
            target_shift=aim,
            shifted_sum=self.shifted_sum + self.n * step,
            shifted_gram=self.shifted_gram + (half + half.T),
            shifted_target_sum=self.shifted_target_sum + self.n * turn,
            shifted_target_squares=self.shifted_target_squares
            + 2 * turn * self.shifted_target_sum
            + self.n * turn**2,
            shifted_cross=self.shifted_cross
            + np.outer(self.shifted_sum + self.n * step, turn)
            + np.outer(step, self.shifted_target_sum),
        )

    @property
    def dim(self) -> int:
        """D, features."""
        return int(self.shift.size)

    @property
    def targets(self) -> int:
        """T, targets."""
        return int(self.target_shift.size)

    @property
    def mean(self) -> Float:
        """[D], mean of the features."""
        return self.shift + self.shifted_sum / self.n

    @property
    def target_mean(self) -> Float:
        """[T], mean of the targets."""
        return self.target_shift + self.shifted_target_sum / self.n

    @property
    def centred_gram(self) -> Float:
        """[D, D], sum of (f - mean)(f - mean)^T."""
        gram = np.outer(self.shifted_sum, self.shifted_sum / -self.n)
        gram += self.shifted_gram
        return gram

    @property
    def centred_cross(self) -> Float:
        """[D, T], sum of (f - mean)(y - mean)."""
        return self.shifted_cross - np.outer(self.shifted_sum, self.shifted_target_sum / self.n)

    @property
    def centred_target_squares(self) -> Float:
        """[T], sum of (y - mean)^2."""
        return np.maximum(self.shifted_target_squares - self.shifted_target_sum**2 / self.n, 0.0)

    @property
    def varies(self) -> bool:
        """Whether any feature differs between images by more than the rounding of these sums."""
        squares = np.diagonal(self.shifted_gram)
        return bool(
            _beyond_rounding(
                float((squares - self.shifted_sum**2 / self.n).sum()),
                float(squares.sum()),
                float(self.n * self.mean @ self.mean),
            )
        )

    @property
    def targets_vary(self) -> NDArray[np.bool_]:
        """[T], which targets differ between images by more than the rounding of these sums."""
        return np.asarray(
            _beyond_rounding(
                self.centred_target_squares, self.shifted_target_squares, self.n * self.target_mean**2
            )
        )

    def save(self, path: Path) -> None:
        """Write to `path` in NumPy's npz format, without pickle."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, n=np.array(self.n), **self._arrays())

    @classmethod
    def load(cls, path: Path) -> RegressionMoments:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, not a file of moments of real-valued targets, or one whose arrays do not
                fit each other.
        """
        hint = "delete the file; the next run makes it again"
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            moments = cls(n=int(found.pop("n")), **found)
        except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"not a readable file of moments ({error})", where=str(path), hint=hint
            ) from error
        d, t = moments.shift.shape, moments.target_shift.shape
        shapes = (d, t, d, d + d, t, t, d + t)
        wrong = [
            name
            for (name, array), shape in zip(moments._arrays().items(), shapes, strict=True)
            if array.shape != shape
        ]
        if wrong or moments.n < 1:
            raise UserError(
                f"moments whose arrays do not fit each other: {', '.join(wrong) or 'n'}",
                where=str(path),
                hint=hint,
            )
        return moments

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "n"}


def _beyond_rounding(scatter: Any, shifted: Any, magnitude: Any) -> Any:
    """Whether a sum of squares about the mean is more than what rounding leaves of a constant: 1e-13 of the sum
    about the shift, 1e-24 of the sum about zero."""
    return scatter > np.maximum(1e-13 * shifted, 1e-24 * magnitude)

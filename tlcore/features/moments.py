"""Sufficient statistics of features and labels, which add across shards.

Most transferability scores need no single image's features, only sums over images. `Moments` holds
those sums in float64: memory O(D^2 + K D), whatever the number of images. Shards that were counted
on different machines are added with `+`.

Sums of squares about the origin lose digits when features sit far from it (a mean of 50 and a spread
of 1 cost seven of float32's digits). So every sum is taken about a `shift`, by default the mean of the
first batch, and adding two moments re-bases one of them to the other's shift, which is exact algebra:

    sum (f - c')         = s + n d                                with d = c - c'
    sum (f - c')(f - c')^T = G + s d^T + d s^T + n d d^T
    sum |f - c'|^2 (f - c') = u + tr(G) d + 2 G d + 2 (s.d) d + |d|^2 s + n |d|^2 d
    sum |f - c'|^4          = q + 4 d.u + 2 |d|^2 tr(G) + 4 d^T G d + 4 |d|^2 s.d + n |d|^4

with s, G, u, q the sums about c. The last two are what shrinking a covariance matrix by the data needs (Ledoit
& Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", lemma 3.2 to 3.4).
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
from tlcore.features.rows import check_features, checked_labels, checked_probabilities

__all__ = ["Moments", "MomentsBuilder"]

Float = NDArray[np.float64]
BATCH = 2048
"""Rows that are taken to float64 at once: bounds memory without slowing the matrix products."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over n labelled images with D features, K classes and, optionally, Z source classes.

    Attributes:
        shift: [D], the point c that the shifted sums are taken about.
        shifted_sum: [D], sum of f - c.
        shifted_gram: [D, D], sum of (f - c)(f - c)^T.
        class_counts: int64 [K], images per class; 0 for a class that does not occur.
        shifted_class_sums: [K, D], sum of f - c per class.
        shifted_class_squares: [K, D], sum of (f - c)^2 per class, feature by feature.
        shifted_cubic: [D], sum of |f - c|^2 (f - c).
        shifted_quartic: [] (no axis), sum of |f - c|^4.
        source_counts: int64 [K, Z], images of class k whose most probable source class is z; or None.
        source_mass: [K, Z], sum over the images of class k of the source probabilities; or None.

    The arrays are read-only, so that no scorer can change what the next one sees.
    """

    shift: Float
    shifted_sum: Float
    shifted_gram: Float
    class_counts: NDArray[np.int64]
    shifted_class_sums: Float
    shifted_class_squares: Float
    shifted_cubic: Float
    shifted_quartic: Float
    source_counts: NDArray[np.int64] | None = None
    source_mass: Float | None = None

    def __post_init__(self) -> None:
        for array in self._arrays().values():
            array.flags.writeable = False

    @classmethod
    def of(
        cls,
        features: ArrayLike,
        labels: ArrayLike,
        classes: int,
        source_probabilities: ArrayLike | None = None,
        *,
        shift: ArrayLike | None = None,
    ) -> Moments:
        """Moments of features [n, D], labels [n] in 0 … classes-1 and probabilities [n, Z] of a source head.

        Raises:
            UserError: shapes that do not match; NaN or infinite values (rows named); labels outside the
                classes (rows named); probabilities that are no probabilities.
        """
        builder = MomentsBuilder(classes, shift=shift)
        builder.add(features, labels, source_probabilities)
        return builder.moments()

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of images together; the shift is the left one's."""
        if not isinstance(other, Moments):
            return NotImplemented
        if (self.dim, self.classes) != (other.dim, other.classes):
            raise UserError(
                f"moments of {self.dim} features and {self.classes} classes cannot be added to moments of "
                f"{other.dim} features and {other.classes} classes"
            )
        if other.n == 0:
            return self
        if self.n == 0:
            return other
        ours, theirs = self._arrays(), other.rebased(self.shift)._arrays()
        if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
            raise _other_source_classes()
        return Moments(
            **{
                name: ours[name] if name == "shift" else np.asarray(ours[name] + theirs[name])
                for name in ours
            }
        )

    @staticmethod
    def merge(shards: Iterable[Moments]) -> Moments:
        """Sum of at least one shard."""
        shards = list(shards)
        if not shards:
            raise UserError("no moments to merge: the list of shards is empty")
        return functools.reduce(operator.add, shards)

    def rebased(self, shift: ArrayLike) -> Moments:
        """The same moments about another point [D]."""
        point = np.array(shift, dtype=np.float64)
        step = self.shift - point
        if not step.any():
            return self
        counts = self.class_counts[:, None]
        return Moments(
            shift=point,
            shifted_sum=self.shifted_sum + self.n * step,
            shifted_gram=self._gram(step),
            class_counts=self.class_counts,
            shifted_class_sums=self.shifted_class_sums + counts * step,
            shifted_class_squares=self._class_squares(step),
            shifted_cubic=self._cubic(step),
            shifted_quartic=self._quartic(step),
            source_counts=self.source_counts,
            source_mass=self.source_mass,
        )

    def _gram(self, step: Float) -> Float:
        """[D, D], sum of (f - c + d)(f - c + d)^T."""
        # s d^T + d s^T + n d d^T = (s + n d / 2) d^T + its transpose: one outer product, exactly symmetric
        half = np.outer(self.shifted_sum + self.n / 2 * step, step)
        gram: Float = half + half.T
        gram += self.shifted_gram
        return gram

    def _class_squares(self, step: Float) -> Float:
        """[K, D], sum of (f - c + d)^2 per class, feature by feature."""
        found: Float = self.shifted_class_squares + 2 * step * self.shifted_class_sums
        found += self.class_counts[:, None] * step**2
        return found

    def _cubic(self, step: Float) -> Float:
        """[D], sum of |f - c + d|^2 (f - c + d); see the module's docstring."""
        length, along = float(step @ step), float(self.shifted_sum @ step)
        beside = float(np.trace(self.shifted_gram)) + 2 * along + self.n * length
        found: Float = self.shifted_cubic + 2 * (self.shifted_gram @ step)
        found += beside * step + length * self.shifted_sum
        return found

    def _quartic(self, step: Float) -> Float:
        """[], sum of |f - c + d|^4; see the module's docstring."""
        length, along = float(step @ step), float(self.shifted_sum @ step)
        found = float(self.shifted_quartic) + 4 * float(step @ self.shifted_cubic)
        found += 4 * float(step @ self.shifted_gram @ step)
        found += length * (2 * float(np.trace(self.shifted_gram)) + 4 * along + self.n * length)
        return np.array(found)

    @property
    def n(self) -> int:
        """Images."""
        return int(self.class_counts.sum())

    @property
    def dim(self) -> int:
        """D, features."""
        return int(self.shift.size)

    @property
    def classes(self) -> int:
        """K, classes, absent ones included."""
        return int(self.class_counts.size)

    @property
    def present(self) -> NDArray[np.bool_]:
        """[K], which classes occur."""
        return self.class_counts > 0

    @property
    def total(self) -> Float:
        """[D], sum of f."""
        return self.shifted_sum + self.n * self.shift

    @property
    def mean(self) -> Float:
        """[D], mean of f."""
        return self.shift + self.shifted_sum / self.n

    @property
    def gram(self) -> Float:
        """[D, D], F^T F about the origin. Prefer `centred_gram`, which keeps the digits."""
        return self._gram(self.shift)

    @property
    def centred_gram(self) -> Float:
        """[D, D], sum of (f - mean)(f - mean)^T: n times the covariance matrix (divisor n)."""
        gram = np.outer(self.shifted_sum, self.shifted_sum / -self.n)
        gram += self.shifted_gram
        return gram

    @property
    def class_sums(self) -> Float:
        """[K, D], sum of f per class: Y^T F with one-hot labels Y."""
        return self.shifted_class_sums + self.class_counts[:, None] * self.shift

    @property
    def centred_class_sums(self) -> Float:
        """[K, D], sum of f - mean per class, the mean being that of all images."""
        return self.shifted_class_sums - np.outer(self.class_counts, self.shifted_sum) / self.n

    @property
    def class_squares(self) -> Float:
        """[K, D], sum of f^2 per class, feature by feature."""
        return self._class_squares(self.shift)

    @property
    def centred_squares(self) -> Float:
        """[D], sum of (f - mean)^2, feature by feature: the diagonal of `centred_gram`."""
        return np.maximum(np.diagonal(self.shifted_gram) - self.shifted_sum**2 / self.n, 0.0)

    @property
    def centred_quartic(self) -> float:
        """Sum of |f - mean|^4, not below the (sum of |f - mean|^2)^2 / n that it must exceed."""
        found = float(self._quartic(-self.shifted_sum / self.n))
        return max(found, float(self.centred_squares.sum()) ** 2 / self.n)

    @property
    def varies(self) -> bool:
        """Whether any feature differs between images by more than the rounding of these sums."""
        scatter = float(self.centred_squares.sum())
        magnitude = float(self.n * self.mean @ self.mean)
        return scatter > max(1e-13 * float(np.trace(self.shifted_gram)), 1e-24 * magnitude, 0.0)

    def save(self, path: Path) -> None:
        """Write to `path` in NumPy's npz format, without pickle."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **self._arrays())

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Read what `save` wrote.

        Raises:
            UserError: no such file, or not a file of moments.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                moments = cls(**{name: file[name] for name in file.files})
        except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(
                f"not a readable file of moments ({error})",
                where=str(path),
                hint="delete the file; the next run makes it again",
            ) from error
        moments._check_shapes(path)
        return moments

    def _check_shapes(self, path: Path) -> None:
        d, k = self.dim, self.classes
        expected: dict[str, tuple[int, ...]] = {
            "shift": (d,),
            "shifted_sum": (d,),
            "shifted_gram": (d, d),
            "class_counts": (k,),
            "shifted_class_sums": (k, d),
            "shifted_class_squares": (k, d),
            "shifted_cubic": (d,),
            "shifted_quartic": (),
        }
        arrays = self._arrays()
        wrong = [name for name, shape in expected.items() if arrays[name].shape != shape]
        joint = [arrays[name].shape for name in ("source_counts", "source_mass") if name in arrays]
        if joint and (len(joint) != 2 or joint[0] != joint[1] or joint[0][:1] != (k,)):
            wrong.append("source_counts")
        if wrong:
            raise UserError(
                f"moments whose arrays do not fit each other: {', '.join(wrong)}",
                where=str(path),
                hint="delete the file; the next run makes it again",
            )

    def _arrays(self) -> dict[str, NDArray[Any]]:
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: array for name, array in pairs if array is not None}


class MomentsBuilder:
    """Adds up moments batch by batch, so that the features of all images need never be in memory.

    Args:
        classes: K.
        shift: [D]; default: the mean of the first batch.
    """

    def __init__(self, classes: int, *, shift: ArrayLike | None = None) -> None:
        if classes < 1:
            raise UserError(f"moments need at least one class, not {classes}")
        self._classes = classes
        self._shift = None if shift is None else np.array(shift, dtype=np.float64)
        self._sums: dict[str, NDArray[Any]] = {}
        self._rows = 0

    def add(
        self, features: ArrayLike, labels: ArrayLike, source_probabilities: ArrayLike | None = None
    ) -> None:
        """Add a batch; see `Moments.of`. Rows in errors are counted from the first batch on."""
        rows = np.asarray(features)
        check_features(rows, first_row=self._rows)
        codes = checked_labels(labels, len(rows), self._classes, first_row=self._rows)
        mass = None
        if source_probabilities is not None:
            mass = checked_probabilities(source_probabilities, len(rows), first_row=self._rows)
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            self._add(rows[part], codes[part], None if mass is None else mass[part])
        self._rows += len(rows)

    def moments(self) -> Moments:
        """The sum of all batches so far.

        Raises:
            UserError: no row was added.
        """
        if not self._sums:
            raise UserError("moments of no images: there is no labelled row to count")
        return Moments(**{name: array.copy() for name, array in self._sums.items()})

    def _add(self, rows: NDArray[Any], codes: NDArray[np.int64], mass: NDArray[np.floating] | None) -> None:
        if self._shift is None:
            self._shift = rows.mean(axis=0, dtype=np.float64)
        if self._shift.shape != rows.shape[1:]:
            raise UserError(f"{rows.shape[1]} features in this batch, {self._shift.size} in the ones before")
        # In the order of their classes, so that the sums of a class are sums over a slice.
        order = np.argsort(codes, kind="stable")
        rows, codes = rows[order].astype(np.float64), codes[order]
        rows -= self._shift
        counts = np.bincount(codes, minlength=self._classes).astype(np.int64)
        squares = rows**2
        lengths = squares.sum(axis=1)
        batch: dict[str, NDArray[Any]] = {
            "shift": self._shift,
            "shifted_sum": rows.sum(axis=0),
            "shifted_gram": rows.T @ rows,
            "class_counts": counts,
            "shifted_class_sums": _sums_by_class(rows, counts),
            "shifted_class_squares": _sums_by_class(squares, counts),
            "shifted_cubic": lengths @ rows,
            "shifted_quartic": np.array(lengths @ lengths),
        }
        if mass is not None:
            exact: Float = mass[order].astype(np.float64)
            hard = np.zeros((self._classes, exact.shape[1]), dtype=np.int64)
            np.add.at(hard, (codes, exact.argmax(axis=1)), 1)
            batch |= {"source_counts": hard, "source_mass": _sums_by_class(exact, counts)}
        if not self._sums:
            self._sums = batch
            return
        if {name: array.shape for name, array in batch.items()} != {
            name: array.shape for name, array in self._sums.items()
        }:
            raise _other_source_classes()
        for name in batch.keys() - {"shift"}:
            self._sums[name] += batch[name]


def _other_source_classes() -> UserError:
    return UserError(
        "one of the moments has statistics of source classes that the other lacks",
        hint="make all shards with the same network, all with or all without source probabilities",
    )


def _sums_by_class(rows: Float, counts: NDArray[np.int64]) -> Float:
    """Sum of `rows` [n, D], ordered by class, per class: [K, D]. O(n D), where a one-hot product takes O(n D K)."""
    sums = np.zeros((counts.size, rows.shape[1]))
    stops = np.cumsum(counts)
    for code in np.flatnonzero(counts):
        sums[code] = rows[stops[code] - counts[code] : stops[code]].sum(axis=0)
    return sums

"""Extracted features on disk: plain .npy files that are memory-mapped, and the images they belong to.

features.npy        float32 [n, D]
probabilities.npy   float32 [n, Z], where there is a source head
sample_ids.json     n names, in the rows' order
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlcore.errors import UserError

if TYPE_CHECKING:
    from tlcore.features.extract import ExtractedFeatures

__all__ = ["StoredFeatures", "load_features", "save_features"]


@dataclass(frozen=True)
class StoredFeatures:
    """Features [n, D] and source probabilities [n, Z] or None, memory-mapped read-only, by sample_id."""

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    sample_ids: tuple[str, ...]

    def rows(self, sample_ids: Sequence[str]) -> NDArray[np.intp]:
        """Row numbers of the given images.

        Raises:
            UserError: an image without features.
        """
        place = {name: row for row, name in enumerate(self.sample_ids)}
        absent = [name for name in sample_ids if name not in place]
        if absent:
            raise UserError(f"no features of {len(absent)} images, for example {', '.join(absent[:3])}")
        return np.array([place[name] for name in sample_ids], dtype=np.intp)


def save_features(folder: Path, extracted: ExtractedFeatures, sample_ids: Sequence[str]) -> None:
    """Write `extracted` into an existing folder, which the caller makes visible as a whole.

    Raises:
        UserError: sample_ids that are not one per row, or not unique.
    """
    n = len(extracted.features)
    if len(sample_ids) != n or len(set(sample_ids)) != n:
        raise UserError(
            f"{n} rows of features, but {len(set(sample_ids))} different sample_ids", where=str(folder)
        )
    np.save(folder / "features.npy", extracted.features, allow_pickle=False)
    if extracted.probabilities is not None:
        np.save(folder / "probabilities.npy", extracted.probabilities, allow_pickle=False)
    (folder / "sample_ids.json").write_text(json.dumps(list(sample_ids)), encoding="utf-8")


def load_features(folder: Path) -> StoredFeatures:
    """What `save_features` wrote.

    Raises:
        UserError: files missing, damaged, or of different lengths.
    """
    try:
        ids = json.loads((folder / "sample_ids.json").read_text(encoding="utf-8"))
        features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
        mass = folder / "probabilities.npy"
        probabilities = np.load(mass, mmap_mode="r", allow_pickle=False) if mass.exists() else None
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, str(error)) from error
    if not isinstance(ids, list) or features.ndim != 2 or len(ids) != len(features):
        raise _damaged(folder, f"{len(ids)} sample_ids for features of shape {features.shape}")
    if probabilities is not None and (probabilities.ndim != 2 or len(probabilities) != len(ids)):
        raise _damaged(folder, f"probabilities of shape {probabilities.shape} for {len(ids)} images")
    return StoredFeatures(features, probabilities, tuple(ids))


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        f"not readable as features ({what})",
        where=str(folder),
        hint="delete the folder; the next run makes it again",
    )

"""Whether an engine's features are those of the plain network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["disagreement"]

Float = NDArray[np.floating]

COSINE = {True: 0.995, False: 0.99995}
"""Least cosine per image, by whether the engine rounds to bfloat16."""
LENGTH = {True: 0.05, False: 0.01}
"""Largest relative difference in length per image."""
PROBABILITY = {True: 0.1, False: 0.01}
"""Largest difference of a source probability."""


def disagreement(
    found: tuple[NDArray[np.float32], NDArray[np.float32] | None],
    plain: tuple[NDArray[np.float32], NDArray[np.float32] | None],
    *,
    reduced: bool,
    first: int = 0,
) -> str:
    """The first reason why (features [n, D], probabilities [n, Z] or None) of an engine are not those of the plain
    network in float32; "" where they agree.

    Per image: cos(f, g) >= COSINE and | |f| / |g| - 1 | <= LENGTH; an image without features (|g| = 0) must have
    none. Probabilities differ by PROBABILITY at most.

    Args:
        reduced: the engine computes in bfloat16.
        first: number of the first image, for the reason.
    """
    f, g = found[0].astype(np.float64), plain[0].astype(np.float64)
    if f.shape != g.shape:
        return f"it gives features of shape {list(f.shape)} instead of {list(g.shape)}"
    if not np.isfinite(f).all():
        return "its features are NaN or infinite"
    lengths, wanted = np.linalg.norm(f, axis=1), np.linalg.norm(g, axis=1)
    none = wanted == 0
    safe = np.where(none | (lengths == 0), 1.0, lengths * wanted)
    cosine = np.where(none, np.where(lengths == 0, 1.0, 0.0), (f * g).sum(axis=1) / safe)
    worst = int(cosine.argmin())
    if cosine[worst] < COSINE[reduced]:
        return f"cosine {cosine[worst]:.5f} with eager float32 for image {first + worst}, {COSINE[reduced]} is needed"
    ratio = np.where(none, 1.0, lengths / np.where(none, 1.0, wanted))
    worst = int(np.abs(ratio - 1).argmax())
    if abs(ratio[worst] - 1) > LENGTH[reduced]:
        return f"features of image {first + worst} are {ratio[worst]:.3f} times as long as with eager float32"
    if (found[1] is None) != (plain[1] is None):
        return "it gives no source probabilities" if found[1] is None else "it gives source probabilities"
    if found[1] is not None and plain[1] is not None:
        if found[1].shape != plain[1].shape:
            return f"it gives {found[1].shape[1]} source classes instead of {plain[1].shape[1]}"
        apart = float(np.abs(found[1] - plain[1]).max())
        if not apart <= PROBABILITY[reduced]:
            return f"a source probability differs by {apart:.3f} from eager float32"
    return ""

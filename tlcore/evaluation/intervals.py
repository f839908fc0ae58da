"""95 % intervals of measures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tlcore.values import Interval

__all__ = ["LEVEL", "percentile", "reflected", "wilson"]

LEVEL = 0.95
"""Coverage of every interval."""

_Z = 1.959963984540054  # standard normal quantile of (1 + LEVEL) / 2


def percentile(draws: NDArray[np.float64]) -> Interval:
    """The central 95 % of bootstrap draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high))


def reflected(value: float, draws: NDArray[np.float64]) -> Interval:
    """The basic bootstrap interval of a measure in [0, 1]: draws mirrored at the value (and always around it)."""
    raw = percentile(draws)
    return Interval(
        low=min(value, max(0.0, 2 * value - raw.high)), high=max(value, min(1.0, 2 * value - raw.low))
    )


def wilson(share: float, images: float) -> Interval:
    """Wilson's 95 % score interval of a share of `images` (Wilson 1927; `images` may be an effective number)."""
    z2 = _Z * _Z
    centre = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = _Z / (1 + z2 / images) * math.sqrt(share * (1 - share) / images + z2 / (4 * images * images))
    # at the ends the bound is exactly the share; rounding must not push it past
    return Interval(low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half)))

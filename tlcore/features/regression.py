"""Sufficient statistics of features and real-valued targets, which add across shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RegressionMoments"]

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegressionMoments:
    """Sums over n images with D features and T real targets.

    Attributes:
        n: images.
        shift: [D], the point c that feature sums are taken about.
        target_shift: [T], the point that target sums are taken about.
        shifted_sum: [D]; shifted_gram: [D, D]; shifted_target_sum: [T]; shifted_target_squares: [T];
        shifted_cross: [D, T], sum of (f - c)(y - t).
    """

    n: int
    shift: Float
    target_shift: Float
    shifted_sum: Float
    shifted_gram: Float
    shifted_target_sum: Float
    shifted_target_squares: Float
    shifted_cross: Float

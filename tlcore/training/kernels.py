"""Distances between two samples by kernels. Import costs nothing.

The samples lie in one matrix: the first n rows are of one, the others of the other. A kernel matrix K is float [N, N].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcore.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "SCALES",
    "gaussian_kernel",
    "joint_mmd",
    "mk_mmd",
    "multi_kernel",
    "squared_distances",
    "unbiased_mmd",
]

SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""2^k, k = -3 … 1: bandwidths of the kernels of DAN and JAN, as multiples of the mean squared distance."""

_LEAST = 1e-12
"""Mean squared distance below which all rows count as one point."""


def squared_distances(x: Tensor) -> Tensor:
    """|x_i - x_j|^2, never negative. x: float [N, d]; the result is [N, N].

    Of centred rows by |a|^2 + |b|^2 - 2 ab, which takes N^2 numbers where all differences would take N^2 d.
    """
    x = x - x.mean(0, keepdim=True).detach()
    squares = x.pow(2).sum(1)
    return (squares[:, None] + squares[None, :] - 2 * x @ x.T).clamp_min(0)


def gaussian_kernel(x: Tensor, width: float) -> Tensor:
    """exp(-|x_i - x_j|^2 / width), width > 0 in the units of the squared distance."""
    return (-squared_distances(x) / width).exp()


def multi_kernel(x: Tensor, scales: tuple[float, ...] = SCALES) -> Tensor:
    """sum_u exp(-|x_i - x_j|^2 / (2 s_u v)), v being the mean squared distance of two different rows.

    No gradient goes through v, as in the reference code. Rows that are all the same have kernel values of 1.

    Raises:
        PluginError: fewer than two rows.
    """
    rows = len(x)
    if rows < 2:
        raise PluginError("a kernel whose width is the mean distance of images needs at least two images")
    distances = squared_distances(x)
    mean = (distances.detach().sum() / (rows * (rows - 1))).clamp_min(_LEAST)
    kernel = (-distances / (2 * scales[0] * mean)).exp()
    for scale in scales[1:]:
        kernel = kernel + (-distances / (2 * scale * mean)).exp()
    return kernel


def unbiased_mmd(kernel: Tensor, count: int) -> Tensor:
    """Squared maximum mean discrepancy of the first `count` rows and the others, all pairs, without bias: pairs of an
    image with itself are left out, so that two samples of one distribution give 0 on average and less now and then
    (Gretton et al. 2012, eq. 3).

    Raises:
        PluginError: fewer than two rows on a side, where it is not defined.
    """
    other = len(kernel) - count
    if min(count, other) < 2:
        raise PluginError("a maximum mean discrepancy needs at least two images of each domain in a batch")

    def within(block: Tensor) -> Tensor:
        return (block.sum() - block.diagonal().sum()) / (len(block) * (len(block) - 1))

    across = kernel[:count, count:].mean()
    return within(kernel[:count, :count]) + within(kernel[count:, count:]) - 2 * across


def mk_mmd(source: Tensor, target: Tensor, scales: tuple[float, ...] = SCALES) -> Tensor:
    """Multi-kernel MMD^2 of source float [n, d] and target float [m, d] (Long et al. 2015, eq. 1 and 2): a scalar.

    The kernel is the plain sum of the Gaussian kernels of `scales`, in place of learnt weights, as in the authors' code.

    Raises:
        PluginError: fewer than two rows on a side.
    """
    import torch

    return unbiased_mmd(multi_kernel(torch.cat([source, target]), scales), len(source))


def joint_mmd(
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    width: float,
    scales: tuple[float, ...] = SCALES,
) -> Tensor:
    """Joint MMD^2 of pairs (features [n, d], probabilities [n, K]) of source and target (Long et al. 2017, section 4.1).

    The kernel of two images is the product of the features' multi-kernel and the probabilities' Gaussian kernel of
    `width`.

    Raises:
        PluginError: fewer than two rows on a side.
    """
    import torch

    features, probabilities = (torch.cat([a, b]) for a, b in zip(source, target, strict=True))
    kernel = multi_kernel(features, scales) * gaussian_kernel(probabilities, width)
    return unbiased_mmd(kernel, len(source[0]))

"""Which candidates no other one beats in cost and quality at once."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["pareto_front"]


def pareto_front(costs: Sequence[float], qualities: Sequence[float]) -> tuple[int, ...]:
    """Positions of the points that are not dominated, from the cheapest to the dearest.

    A point is dominated by one that costs no more and is no worse, and differs in one of the two. Points that
    are equal in both stand or fall together.

    Raises:
        ValueError: lengths that differ.
    """
    points = list(zip(costs, qualities, strict=True))
    best, front = float("-inf"), []
    seen: tuple[float, float] | None = None
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best or points[index] == seen:
            best, seen = points[index][1], points[index]
            front.append(index)
    return tuple(front)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.selection.pareto import pareto_front

point = st.tuples(st.sampled_from([1.0, 2.0, 3.0, 5.0]), st.sampled_from([0.1, 0.2, 0.4, 0.8]))


@given(st.lists(point, max_size=12))
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[float, float]]) -> None:
    def dominated(p: tuple[float, float]) -> bool:
        return any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)

    front = pareto_front([c for c, _ in points], [q for _, q in points])
    assert sorted(front) == [i for i, p in enumerate(points) if not dominated(p)]
    shown = [points[i] for i in front]
    assert shown == sorted(shown)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        pareto_front([1.0, 2.0], [1.0])

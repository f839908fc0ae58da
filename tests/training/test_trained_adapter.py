"""What adapters that train have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.protocols import Card, TrainTask
from tlcore.training.objectives import Supervised
from tlcore.training.plan import Objective, Phase
from tlcore.training.trained_adapter import AFFORDABLE_GMACS, TrainedAdapter
from tlcore.values import Bottleneck


class Plain(TrainedAdapter):
    card: ClassVar[Card] = Card(name="plain", summary="x", reference="x")

    def objective(self, task: TrainTask) -> Objective:
        return Supervised()


class OnImages(Plain):
    modes: ClassVar[Any] = ("all", "last")


def task(gmacs: float | None = 0.001, images: int = 100) -> TrainTask:
    return TrainTask(("a", "b"), 8, images, images, gmacs=gmacs)


def phase(adapter: TrainedAdapter, given: TrainTask) -> Phase:
    (found,) = adapter.plan(given).phases
    assert isinstance(found, Phase)
    return found


def test_auto_trains_the_whole_of_a_small_network_and_the_head_of_a_large_or_unknown_one() -> None:
    assert [Plain().mode(task(gmacs)) for gmacs in (0.001, 4.1, None)] == ["all", "head", "head"]
    assert [OnImages().mode(task(gmacs)) for gmacs in (0.001, 4.1, None)] == ["all", "last", "last"]


def test_a_mode_that_the_method_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(UserError, match='cannot train = "head"') as caught:
        OnImages(train="head").plan(task())
    assert caught.value.choices == ("all", "last")


@given(st.integers(1, 200_000), st.floats(1e-4, 50))
def test_steps_are_ten_passes_within_bounds_and_on_costly_images_what_is_affordable(
    images: int, gmacs: float
) -> None:
    given_task = task(gmacs, images)
    on_features = Plain(train="head").total_steps(given_task, "head")
    assert on_features == min(5000, max(500, 10 * -(-images // 32)))
    for mode in ("all", "last"):
        adapter = Plain(train=mode)
        steps = adapter.total_steps(given_task, mode)
        work = steps * adapter.step_gmacs(given_task, mode)
        assert 100 <= steps <= on_features
        assert work <= AFFORDABLE_GMACS or steps == 100
    assert Plain(steps=7).total_steps(given_task, "all") == 7


def test_a_checkpoint_falls_at_equal_steps_and_never_more_often_than_steps() -> None:
    found = phase(Plain(steps=95, checkpoints=10), task())
    assert (found.epochs, found.steps_per_epoch) == (10, 10)
    assert phase(Plain(steps=3, checkpoints=10), task()).epochs == 3


@pytest.mark.parametrize(
    ("train", "gmacs", "rates"),
    [
        ("all", 0.001, {"backbone": 0.01, "head": 0.01}),
        ("all", 4.1, {"backbone": 0.001, "head": 0.01}),
        ("last", 0.001, {"last:1": 0.001, "head": 0.01}),
        ("head", 4.1, {"bottleneck": 0.01, "head": 0.01}),
    ],
)
def test_large_backbones_move_at_a_tenth_of_the_rate(
    train: Any, gmacs: float, rates: dict[str, float]
) -> None:
    (move,) = phase(Plain(train=train), task(gmacs)).moves
    assert {group.parameters: group.lr for group in move.groups} == pytest.approx(rates)


def test_on_cached_features_there_is_always_a_bottleneck_elsewhere_where_it_is_asked_for() -> None:
    assert Plain(train="head").plan(task()).bottleneck == Bottleneck(width=256, dropout=0.5)
    assert Plain(train="all").plan(task()).bottleneck is None
    plan = Plain(train="all", bottleneck=64, dropout=0).plan(task())
    assert plan.bottleneck == Bottleneck(width=64, dropout=0)
    (found,) = plan.phases
    assert isinstance(found, Phase) and [g.parameters for g in found.moves[0].groups] == [
        "backbone",
        "bottleneck",
        "head",
    ]


def test_a_plan_on_features_keeps_the_backbone() -> None:
    assert Plain(train="head").plan(task()).keeps_backbone
    assert not Plain(train="last").plan(task()).keeps_backbone

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.registry import Registry
from tlcore.selection.halving import seconds_of_epochs
from tlcore.training.auto import CLOSED_FORM, TABLE, Auto, gradient_seconds

NAMES = {entry.name for entry in Registry.discover(block=()).entries if entry.kind == "tuner"}


def task(images: int, classes: int = 4, **known: object) -> TrainTask:
    return TrainTask(tuple(map(str, range(classes))), 8, images, **{"gmacs": 0.3, **known})  # type: ignore[arg-type]


def test_every_row_names_a_strategy_that_takes_its_options() -> None:
    registry = Registry.discover(block=())
    for row in TABLE:
        assert registry.build("tuner", row.strategy, dict(row.options)).card.name == row.strategy
    assert [row.images for row in TABLE] == sorted(row.images for row in TABLE)
    assert math.isinf(TABLE[-1].images)


@pytest.mark.parametrize(
    ("images", "chosen"),
    [
        (4, "ridge"),
        (8, "ridge"),
        (9, "full"),
        (220, "full"),
        (223, "lp-ft"),
        (10**6, "lp-ft"),
    ],
)
def test_one_or_two_images_get_a_head_alone_and_more_get_what_there_is_time_for(
    images: int, chosen: str
) -> None:
    name, options = Auto().choose(task(images))
    assert name == chosen
    assert options == {}


@given(
    st.integers(0, 10**7),
    st.integers(1, 1000),
    st.sampled_from([None, 0.0, 1.0, 1e9]),
    st.sampled_from([None, 0.0, 9.0]),
)
def test_something_is_chosen_for_every_task(
    images: int, classes: int, budget: float | None, gmacs: float | None
) -> None:
    for kind in ("classification", "regression", "multi-label"):
        name, _ = Auto().choose(task(images, classes, budget=budget, gmacs=gmacs, task=kind))
        assert name != "auto"


def test_the_first_that_a_budget_has_room_for_is_chosen() -> None:
    full, short = (gradient_seconds(task(400), epochs) for epochs in (15, 5))
    assert full == pytest.approx(3 * 0.3 * 400 * 15 / 30)
    assert Auto().choose(task(400, budget=full * 1.1)) == ("full", {})
    assert Auto().choose(task(400, budget=full * 0.9)) == ("lp-ft", {})
    assert Auto().choose(task(400, budget=short * 0.9)) == ("ridge", {})
    assert Auto().choose(task(400, budget=full * 1.1, trainings=3))[0] == "lp-ft"


def test_a_budget_is_held_against_measured_speed_where_there_is_one() -> None:
    known = task(400, images_per_second=100.0)
    needed = gradient_seconds(known, 15)
    assert needed == seconds_of_epochs(15, 400, 100.0) != gradient_seconds(task(400), 15)
    assert Auto().choose(replace(known, budget=needed * 0.9))[0] == "lp-ft"
    assert Auto().choose(replace(known, budget=needed * 1.1, gmacs=None))[0] == "full"


@given(st.sampled_from([None, 1e-3, 1.0, 1e6]), st.integers(1, 20))
def test_without_a_budget_the_work_is_counted_and_no_clock_decides(
    rate: float | None, trainings: int
) -> None:
    most = int(3000 / (3 * 0.3 * 15 * trainings))
    for images, chosen in ((most, "full"), (most + 1, "lp-ft")):
        assert Auto().choose(task(images, images_per_second=rate, trainings=trainings))[0] == chosen
    assert Auto(gmacs_without_budget=1e9).choose(task(1000, images_per_second=rate))[0] == "full"


def test_a_budget_and_a_network_of_unknown_cost_get_a_closed_form() -> None:
    assert Auto().choose(task(400, gmacs=None, budget=3600))[0] == CLOSED_FORM
    assert Auto().choose(task(400, gmacs=None))[0] == "lp-ft"


@pytest.mark.parametrize("kind", ["regression", "multi-label"])
def test_numbers_and_tags_are_chosen_for_as_classes_are(kind: str) -> None:
    assert Auto().choose(task(8, task=kind))[0] == "ridge"
    assert Auto().choose(task(2000, task=kind, budget=0.001))[0] == "ridge"
    assert Auto().choose(task(2000, task=kind))[0] == "lp-ft"


def test_numbers_count_as_ten_classes() -> None:
    assert Auto().choose(task(20, classes=1, task="regression"))[0] == "ridge"
    assert Auto().choose(task(21, classes=1, task="regression"))[0] == "full"


def test_what_it_may_choose_is_told_beforehand() -> None:
    assert set(Auto.choices()) == {"ridge", "full", "lp-ft"} <= NAMES


def test_a_plan_of_auto_itself_is_refused_with_what_to_do() -> None:
    with pytest.raises(PluginError, match=r"resolved[\s\S]*lp-ft"):
        Auto().plan(task(400))


@pytest.mark.slow
def test_only_a_tuner_that_stands_for_another_one_chooses() -> None:
    registry = Registry.discover(block=())
    choosing = [name for name in NAMES if registry.load("tuner", name).chooses()]  # type: ignore[attr-defined]
    assert choosing == ["auto"]
    assert registry.build("tuner", "lp-ft").choose(task(4)) is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (task(8), "up to 2 images a class"),
        (task(200), "above 2 images a class"),
        (task(2000), "full would take 27,000 GMACs; a --budget with room for it takes it"),
        (task(400, budget=1e-3), "a head in closed form: no time for gradient steps"),
        (task(8, task="multi-label"), "up to 2 images a class"),
    ],
)
def test_the_reason_is_the_row_or_what_overruled_it(given: TrainTask, said: str) -> None:
    assert Auto().reason(given) == said

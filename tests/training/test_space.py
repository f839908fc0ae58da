from __future__ import annotations

from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tlcore.errors import UnknownName, UserError
from tlcore.protocols import Card, Strategy
from tlcore.registry import Registry
from tlcore.training.space import Choices, Range, check_names, search_space


class Probe(Strategy):
    card: ClassVar[Card] = Card(name="probe", summary="s", reference="r")

    lr: float = Field(1e-4, ge=1e-6, le=0.1)
    decay: float = Field(0.01, ge=0, le=1)
    share: float = Field(0.5, gt=0, lt=1)
    width: int = Field(64, gt=7, lt=1025)
    few: int = Field(3, ge=1, le=5)
    mean: bool = False
    kind: Literal["a", "b", "c"] = "b"
    ema: float | None = Field(None, ge=0.5, lt=1)
    policy: str | None = Field(None, pattern="x")
    open_ended: float = Field(1.0, gt=0)


class Declared(Probe):
    searched: ClassVar[tuple[str, ...]] = ("share", "lr")


class Choosing(Strategy):
    card: ClassVar[Card] = Card(name="choosing", summary="s", reference="r")


def test_every_bounded_option_is_searched_where_the_strategy_names_none() -> None:
    assert [one.name for one in search_space(Probe())] == [
        "lr",
        "decay",
        "share",
        "width",
        "few",
        "mean",
        "kind",
    ]


def test_options_that_the_strategy_names_come_before_its_bounded_ones_and_given_names_before_both() -> None:
    assert [one.name for one in search_space(Declared())] == ["share", "lr"]
    assert [one.name for one in search_space(Declared(), ("kind", "few", "kind"))] == ["kind", "few"]


def test_two_decades_above_zero_are_searched_on_a_logarithmic_scale() -> None:
    space = {one.name: one for one in search_space(Probe())}
    assert space["lr"] == Range("lr", 1e-6, 0.1) and space["lr"].log
    assert space["width"] == Range("width", 8, 1024, whole=True) and space["width"].log
    assert space["decay"] == Range("decay", 0.0, 1.0)
    for name in ("share", "few", "decay"):
        assert isinstance(one := space[name], Range) and not one.log
    assert space["mean"] == Choices("mean", (False, True)) and space["kind"] == Choices(
        "kind", ("a", "b", "c")
    )
    assert str(space["lr"]) == "1e-06 to 0.1, log" and str(space["kind"]) == "a, b, c"


@pytest.mark.parametrize("end", ["low", "high"])
def test_ends_of_a_searched_range_are_values_that_the_option_takes(end: str) -> None:
    for one in search_space(Probe()):
        if isinstance(one, Range):
            Probe.model_validate({one.name: int(getattr(one, end)) if one.whole else getattr(one, end)})


@given(st.floats(1e-6, 0.1))
def test_the_own_bounds_of_a_number_are_searched_whatever_its_configured_value(value: float) -> None:
    (one,) = search_space(Probe(lr=value), ("lr",))
    assert one == Range("lr", 1e-6, 0.1) and value in one


@given(st.floats(1e-6, 0.1), st.floats(1e-6, 0.1))
def test_bounds_that_are_given_narrow_the_own_ones(one: float, other: float) -> None:
    low, high = sorted((one, other))
    if low < high:
        assert search_space(Probe(), ("lr",), {"lr": (low, high)}) == (Range("lr", low, high),)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"lr": (1e-7, 1e-2)}, "1e-07 to 0.01 lies outside the own bounds"),
        ({"lr": (1e-3, 1.0)}, '0.001 to 1 lies outside the own bounds of option "lr" of probe, 1e-06 to 0.1'),
        ({"share": (0.0, 0.5)}, "outside"),
        ({"few": (1.2, 1.8)}, "one value|cannot be searched"),
        ({"kind": (0.0, 1.0)}, "is no number"),
    ],
)
def test_bounds_outside_the_own_ones_are_refused_with_both(
    bounds: dict[str, tuple[float, float]], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        search_space(Probe(), (), bounds)


@pytest.mark.parametrize(
    ("name", "said"),
    [("policy", "neither a number"), ("ema", "is none"), ("open_ended", "no bound above")],
)
def test_an_option_that_cannot_be_searched_is_refused_by_name_and_left_out_by_default(
    name: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        search_space(Probe(), (name,))
    assert name in str(caught.value)
    assert name not in {one.name for one in search_space(Probe())}


def test_a_value_or_bounds_make_such_options_searchable() -> None:
    ema, above = search_space(Probe(ema=0.9), ("ema", "open_ended"), {"open_ended": (0.1, 100.0)})
    assert isinstance(ema, Range) and 0.99 < ema.high < 1
    assert above == Range("open_ended", 0.1, 100.0) and isinstance(above, Range) and above.log


def test_names_must_belong_to_one_of_the_strategies() -> None:
    check_names([Probe(), Declared()], ("lr",), {"lr": (1e-5, 1e-3)})
    with pytest.raises(UnknownName, match='did you mean "width"'):
        check_names([Probe()], ("widht",), {})
    with pytest.raises(UnknownName, match="--search decay"):
        check_names([Probe()], ("lr",), {"decay": (0.1, 0.2)})


def test_what_every_installed_tuner_searches_lies_inside_its_own_options() -> None:
    registry = Registry.discover()
    for name in registry.names("tuner"):
        tuner = registry.build("tuner", name)
        for one in search_space(tuner):
            ends = (one.low, one.high) if isinstance(one, Range) else one.values
            assert getattr(tuner, one.name) in one, f"{name}: the default of {one.name} lies outside"
            for end in ends:
                whole = isinstance(one, Range) and one.whole
                registry.build("tuner", name, {one.name: int(end) if whole else end})


def test_options_of_what_may_be_chosen_are_refused_where_none_of_it_can_search_them() -> None:
    check_names([Choosing()], ("lr",), {"lr": (1e-5, 1e-3)}, [Probe(), Declared()])
    check_names([Choosing()], ("ema",), {}, [Probe(), Probe(ema=0.9)])
    with pytest.raises(UserError, match="cannot be searched"):
        check_names([Choosing()], ("policy",), {}, [Probe()])
    with pytest.raises(UserError, match="outside the own bounds"):
        check_names([Choosing()], ("lr",), {"lr": (1e-9, 1.0)}, [Probe(), Declared()])

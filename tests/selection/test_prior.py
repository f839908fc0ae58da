"""The static prior: published accuracy or size, never both."""

from __future__ import annotations

from typing import NamedTuple

from scipy.stats import rankdata

from tlcore.selection.prior import static_prior


class One(NamedTuple):
    prior: float | None
    params: int | None


def test_places_are_by_published_accuracy_where_all_have_it() -> None:
    values = [71.0, 80.5, 71.0, 64.2]
    name, places = static_prior([One(value, 1) for value in values], "t.csv")
    assert name == "ImageNet top-1 from t.csv"
    assert places == rankdata([-value for value in values], method="min").tolist()


def test_one_without_it_makes_size_count_for_all_or_stands_without_a_place() -> None:
    entries = [One(71.0, 5), One(None, 9), One(80.0, None)]
    assert static_prior(entries) == ("parameters", [2, 1, None])
    assert static_prior(entries, partly=True) == ("ImageNet top-1", [2, None, 1])
    assert static_prior([One(None, 5), One(None, 9)], partly=True) == ("parameters", [2, 1])
    assert static_prior([One(None, None)]) == ("", [None])
    assert static_prior([]) == ("", [])

"""Candidates of several sources under names of their own."""

from __future__ import annotations

from tlcore.models.listing import list_candidates
from tlcore.values import Candidate


def one(name: str, weights: str, skipped: str | None = None) -> Candidate:
    return Candidate(name=name, source={}, architecture="a", weights_sha256=weights, skipped=skipped)


def names(*candidates: Candidate) -> list[tuple[str, str]]:
    return [(each.name, each.weights_sha256) for each in list_candidates(candidates, {})]


def test_one_candidate_named_twice_counts_once_and_other_weights_get_a_number() -> None:
    assert names(one("x", "1"), one("x", "1")) == [("x", "1")]
    found = names(one("x", "1"), one("x", "2"), one("y", "2"), one("x", "2"), one("x", "3"), one("x", "1"))
    assert found == [("x", "1"), ("x#2", "2"), ("y", "2"), ("x#3", "3")]


def test_one_that_takes_part_replaces_one_that_cannot() -> None:
    assert names(one("x", "", "missing"), one("x", "1"), one("x", "", "missing")) == [("x", "1")]


def test_published_accuracies_are_filled_in() -> None:
    (found,) = list_candidates([one("mine", "1")], {"mine": [(None, 71.0)]})
    assert found.prior == 71.0

"""What is known of the target's classes, and which adapters are sound then."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import UserError
from tlcore.evaluation.label_sets import contract, unsound
from tlcore.protocols import Card

CLASSES = ("ant", "bee", "cat")


def card(*traits: str) -> Card:
    return Card(name="x", summary="x", reference="x", traits=frozenset(traits))


def test_without_a_word_the_label_sets_are_taken_for_equal() -> None:
    assert contract("auto", None, CLASSES).label_sets == "closed"
    assert not contract("auto", None, CLASSES).declared


@given(st.sets(st.sampled_from(CLASSES), min_size=1), st.sets(st.sampled_from(["wasp", "yak"])))
def test_a_list_of_target_classes_decides(known: set[str], new: set[str]) -> None:
    found = contract("auto", sorted(known | new), CLASSES)
    assert set(found.missing) == set(CLASSES) - known and set(found.new) == new and found.declared
    expected = {
        (False, False): "closed",
        (True, False): "partial",
        (False, True): "open",
        (True, True): "open-partial",
    }
    assert found.label_sets == expected[bool(found.missing), bool(new)]


def test_a_contradiction_is_named_with_the_way_on() -> None:
    with pytest.raises(UserError, match='are "partial", not "open"') as caught:
        contract("open", ["ant"], CLASSES)
    assert caught.value.where == "adapt.label_sets" and "auto" in (caught.value.hint or "")


def test_a_target_that_shares_no_class_is_an_error_with_the_sources_classes() -> None:
    with pytest.raises(UserError, match="shares no class") as caught:
        contract("auto", ["zebra"], CLASSES)
    assert caught.value.choices == CLASSES


def test_unknown_label_sets_are_refused() -> None:
    with pytest.raises(UserError, match='"half"'):
        contract("half", None, CLASSES)


@pytest.mark.parametrize(
    ("sets", "traits"),
    product(
        ("closed", "partial", "open", "open-partial"), ((), ("partial",), ("open",), ("partial", "open"))
    ),
)
def test_an_adapter_is_sound_where_its_card_says_so(sets: str, traits: tuple[str, ...]) -> None:
    needed = {"closed": set(), "partial": {"partial"}, "open": {"open"}, "open-partial": {"partial", "open"}}[
        sets
    ]
    why = unsound(card(*traits), sets)  # type: ignore[arg-type]
    assert (why == "") == (needed <= set(traits))
    assert why == "" or why.startswith("not sound here: ")

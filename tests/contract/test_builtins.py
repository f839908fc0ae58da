"""What holds for every strategy that ships with tlcore, whoever wrote it and whenever it came."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tlcore.errors import UnknownName
from tlcore.protocols import KINDS, Card, Strategy
from tlcore.registry import Entry, Registry

TESTS = Path(__file__).resolve().parents[1]
PLUGINS = TESTS.parent / "plugins"
REGISTRY = Registry.discover(block=())
BUILT_INS = [one for one in REGISTRY.entries if one.distribution == "tlcore"]

each = pytest.mark.parametrize("entry", BUILT_INS, ids=lambda one: f"{one.kind}:{one.name}")


def required(entry: Entry) -> dict[str, Any]:
    """Values for the options without a default: a source's path or spec."""
    return dict.fromkeys(entry.schema.get("required", ()), "sample")


def build(entry: Entry) -> Strategy:
    return REGISTRY.build(entry.kind, entry.name, required(entry))


def test_every_strategy_file_is_discovered() -> None:
    files = {path.stem for path in PLUGINS.glob("tlcore_*/*.py") if not path.name.startswith("_")}
    assert files and files == {one.module.rpartition(".")[2] for one in BUILT_INS}


def test_every_kind_has_a_strategy() -> None:
    assert {one.kind for one in BUILT_INS} == set(KINDS)


@each
def test_the_card_is_complete(entry: Entry) -> None:
    assert (entry.status, entry.error) == ("ok", "")
    assert len(entry.summary) <= 120
    assert len(entry.reference) >= 10, "name the paper and equation, or the specification"
    assert entry.licence == "Apache-2.0"
    for trait in entry.traits:
        assert f'"{trait}"' in (Card.__doc__ or ""), (
            f"trait {trait} is not described in tlcore.protocols.Card"
        )


@each
def test_the_file_is_named_as_the_strategy(entry: Entry) -> None:
    assert entry.module.rpartition(".")[2] == entry.name.replace("-", "_")


@each
def test_every_option_says_what_it_is(entry: Entry) -> None:
    for name, field in REGISTRY.load(entry.kind, entry.name).model_fields.items():
        assert field.description, f"{entry.name}: option {name} has no description"


@each
def test_an_unknown_option_is_refused_with_its_name(entry: Entry) -> None:
    with pytest.raises(UnknownName, match='no option of .* named "no_such_option"'):
        REGISTRY.build(entry.kind, entry.name, {**required(entry), "no_such_option": 1})


@each
def test_equal_options_give_equal_frozen_instances(entry: Entry) -> None:
    one, other = build(entry), build(entry)
    assert one == other and hash(one) == hash(other)
    for name in type(one).model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(one, name, None)


@each
def test_an_instance_survives_json_and_pickling(entry: Entry) -> None:
    one = build(entry)
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - written a moment ago, by this test
    assert type(one).model_validate_json(one.model_dump_json()) == one
    again = REGISTRY.build(entry.kind, entry.name, one.model_dump(mode="json"))
    assert again == one


@each
def test_the_options_hold_no_open_table(entry: Entry) -> None:
    """No dicts of anything: an option is typed, so that help and forms can be made from it."""
    for name, field in REGISTRY.load(entry.kind, entry.name).model_fields.items():
        assert field.annotation not in (dict, Any, object), name
        assert not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel)), name


@each
def test_a_test_module_bears_its_name(entry: Entry) -> None:
    name = entry.name.replace("-", "_")
    assert list(TESTS.rglob(f"test_*{name}*.py")), f"no tests/**/test_*{name}*.py"

"""What pluggy lets pass in silence, and what nobody would check otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tlcore import hookspecs
from tlcore.errors import PluginError
from tlcore.protocols import KINDS
from tlcore.registry.hooks import HOOKS, OBSERVERS

if TYPE_CHECKING:
    from conftest import Site


def test_every_hook_belongs_to_a_kind_or_to_observers_and_says_since_when() -> None:
    specified = {name for name, value in vars(hookspecs).items() if hasattr(value, "tlcore_spec")}
    assert specified == {*HOOKS, *OBSERVERS}
    assert set(HOOKS.values()) == set(KINDS)
    for name in specified:
        assert "Since API" in (getattr(hookspecs, name).__doc__ or "")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "def tlcore_scorers",
            "def tlcore_scorer",
            'no such hook: tlcore_scorer (did you mean "tlcore_scorers"?)',
        ),
        ("@hookimpl\n", "", "function tlcore_scorers is not marked @hookimpl"),
        ("@hookimpl\ndef tlcore_scorers", "def tlcore_scorrs", '(did you mean "tlcore_scorers"?)'),
        ("tlcore_scorers()", "tlcore_scorers(task)", "'task'"),
        ("tlcore_scorers()", "tlcore_scorers(task=None)", "argument task must be plain"),
        ("tlcore_scorers()", "tlcore_scorers(*, task)", "argument task must be plain"),
        ("return [Sample]", "raise RuntimeError('no')", "RuntimeError: no (stranger_module.py, line 20)"),
        (
            "return [Sample]",
            "return Sample",
            "tlcore_scorers returned <class 'stranger_module.Sample'>, not a list",
        ),
        ("return [Sample]", "return {'sample': Sample}", "not a list of classes"),
        ("return [Sample]", "return [Sample()]", "returned Sample(weight=1.0), not a class"),
        ("return [Sample]", "return ['sample']", "returned 'sample', not a class"),
        (
            "return [Sample]",
            "return [int]",
            "int, returned as a scorer, is no strategy: it must subclass Scorer",
        ),
        ("def tlcore_scorers", "def tlcore_tuners", "Sample, returned as a tuner, is a scorer"),
        ("    card: ClassVar[Card] = Card(", "    title: ClassVar[Card] = Card(", "Sample has no card"),
        ("Card(name=", "dict(name=", "Sample has no card"),
        ('name="NAME"', 'name="Two Words"', "card.name 'Two Words' is not lower-case words joined by -"),
        ('name="NAME"', 'name="two_words"', "card.name 'two_words'"),
        ('name="NAME"', 'name="x-"', "card.name 'x-'"),
        ('name="NAME"', "name=7", "card.name 7"),
        ('"A constant."', '"  "', "card.summary must be one line"),
        ('"A constant."', '"two\\nlines"', "card.summary must be one line"),
        ('"A constant."', "'\\udc80'", "card.summary must be one line"),
        ('"none, a sample"', '""', "card.reference must be one line"),
        ('"none, a sample"', '"x", licence=None', "card.licence must be one line"),
        ('"none, a sample"', '"x", api="1"', "card.api is '1', not a whole number"),
        ("def score(", "def scores(", "Sample does not implement score"),
        (
            "    weight: float",
            '    model_config = {"extra": "ignore"}\n    weight: float',
            "must stay frozen and refuse",
        ),
        (
            "    weight: float",
            '    model_config = {"frozen": False}\n    weight: float',
            "must stay frozen and refuse",
        ),
        ("weight: float =", "weight: 'Unknown' =", "not fully defined"),
    ],
)
def test_a_faulty_registration_is_listed_with_its_reason(site: Site, old: str, new: str, reason: str) -> None:
    (entry,) = site.module(site.scorer("sample", old, new))
    assert entry.status == "broken"
    assert reason in entry.error
    assert entry.error.count("\n") == 0


def test_a_hook_that_returns_none_registers_nothing_and_is_no_fault(site: Site) -> None:
    source = site.scorer("sample", "    return [Sample]", "    return None")
    site.install("stranger", {"stranger_pkg/one.py": source}, {"it": "stranger_pkg"})
    assert site.listed() == []


def test_a_faulty_class_leaves_its_neighbour_usable(site: Site) -> None:
    source = site.scorer("sample", "return [Sample]", "return [Bad, Sample]")
    source += (
        '\nclass Bad(Scorer):\n    card: ClassVar[Card] = Card(name="bad", summary="x", reference="y")\n'
    )
    entries = site.module(source)
    assert [(one.name, one.status) for one in entries] == [("bad", "broken"), ("sample", "ok")]
    registry = site.discover()
    assert registry.build("scorer", "sample") is not None
    with pytest.raises(PluginError, match="Bad does not implement score"):
        registry.build("scorer", "bad")


@pytest.mark.parametrize(("kind", "option"), [("data-source", "path"), ("model-source", "spec")])
def test_a_source_without_the_option_that_people_name_it_by_is_broken(
    site: Site, kind: str, option: str
) -> None:
    base = KINDS[kind]
    source = site.scorer(
        "sample", "def score(", "def load(self): ...\n    def candidates(self): ...\n    def build("
    )
    source = source.replace("(Scorer)", f"({base.__name__})").replace(
        "Card, Scorer", f"Card, {base.__name__}"
    )
    (entry,) = site.module(source.replace("tlcore_scorers", f"tlcore_{kind.replace('-', '_')}s"))
    assert (entry.kind, entry.status) == (kind, "broken")
    assert f"needs a field {option}: str" in entry.error


def test_one_module_may_register_several_kinds(site: Site) -> None:
    source = site.scorer("sample") + (
        "\nfrom tlcore.protocols import Validator\n\n"
        "class Other(Validator):\n"
        '    card: ClassVar[Card] = Card(name="sample", summary="x", reference="y")\n'
        "    def score(self, outputs): return 0.0\n\n"
        "@hookimpl\ndef tlcore_validators():\n    return [Other]\n"
    )
    assert [(one.kind, one.name, one.status) for one in site.module(source)] == [
        ("scorer", "sample", "ok"),
        ("validator", "sample", "ok"),
    ]

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcore.errors import PluginError, UnknownName, UserError
from tlcore.protocols import Scorer
from tlcore.registry import Registry

if TYPE_CHECKING:
    from conftest import Site

FIELDS = """
    weight: float = Field(1.0, gt=0, description="the constant")
    mode: Literal["sum", "mean"] = Field("sum", description="how images are pooled")
    steps: int = Field(ge=1, le=5, description="steps of the fit")
    names: frozenset[str] = Field(frozenset({"a"}), description="classes that count")
"""


def rich(site: Site) -> Registry:
    source = site.scorer(
        "sample", '    weight: float = Field(1.0, gt=0, description="the constant")\n', FIELDS
    )
    assert [one.status for one in site.module("from typing import Literal\n" + source)] == ["ok"]
    return site.discover()


def test_options_not_given_take_their_defaults(site: Site) -> None:
    built = rich(site).build("scorer", "sample", {"steps": 3})
    assert isinstance(built, Scorer)
    assert built.model_dump() == {"weight": 1.0, "mode": "sum", "steps": 3, "names": frozenset({"a"})}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"steps": 3, "weight": -1},
            ['option "weight"', "is -1", "greater than 0", "the constant; default 1.0"],
        ),
        (
            {"steps": 9},
            ['option "steps" of scorer "sample" is 9', "less than or equal to 5", "steps of the fit"],
        ),
        ({"steps": "many"}, ['option "steps"', "'many'", "valid integer"]),
        ({"steps": 3, "mode": "max"}, ['option "mode"', "'max'", "'sum' or 'mean'"]),
        ({}, ['option "steps" of scorer "sample" is required (steps of the fit)']),
        (
            {"weight": 0, "wieght": 3},
            ['"weight"', 'did you mean "weight"?', '"steps" of scorer "sample" is required'],
        ),
        ({"steps": 3, "names": ["a", 7]}, ['option "names.', "valid string"]),
    ],
)
def test_a_faulty_option_is_told_with_value_bound_meaning_and_place(
    site: Site, options: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        rich(site).build("scorer", "sample", options, where="run.toml [selection]")
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("run.toml [selection]: ")
    for part in parts:
        assert part in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_an_unknown_option_offers_the_nearest(site: Site) -> None:
    with pytest.raises(UnknownName) as caught:
        rich(site).build("scorer", "sample", {"steps": 1, "wieght": 3}, where="run.toml [selection]")
    assert caught.value.nearest == "weight"
    assert caught.value.choices == ("mode", "names", "steps", "weight")
    assert pickle.loads(pickle.dumps(caught.value)).nearest == "weight"  # noqa: S301 - an error of our own


def test_options_must_be_a_table(site: Site) -> None:
    with pytest.raises(UserError, match="must be a table"):
        rich(site).build("scorer", "sample", ["steps", 1])  # type: ignore[arg-type]


def test_a_strategy_that_fails_on_its_options_is_told_with_its_distribution(site: Site) -> None:
    code = "    def model_post_init(self, context):\n        raise RuntimeError('oops')\n\n    def score("
    site.module(site.scorer("sample", "    def score(", code))
    with pytest.raises(
        PluginError, match='scorer "sample" of stranger failed on its options: RuntimeError: oops'
    ):
        site.discover().build("scorer", "sample")


def test_a_validators_own_message_reaches_the_user_without_pydantics_words(site: Site) -> None:
    code = "    def model_post_init(self, context):\n        raise ValueError('weight and mode clash')\n\n    def score("
    site.module("import pydantic\n" + site.scorer("sample", "    def score(", code))
    with pytest.raises(UserError) as caught:
        site.discover().build("scorer", "sample")
    assert "weight and mode clash" in str(caught.value)


def test_identity_holds_everything_that_a_result_depends_on(site: Site) -> None:
    registry = rich(site)
    entry = registry.find("scorer", "sample")
    identity = registry.identity("scorer", "sample", {"steps": 2, "names": ["c", "a", "b"]})
    assert identity == {
        "kind": "scorer",
        "name": "sample",
        "distribution": "stranger",
        "version": "1.0",
        "digest": entry.digest,
        "options": {"weight": 1.0, "mode": "sum", "steps": 2, "names": ["a", "b", "c"]},
    }
    assert json.loads(json.dumps(identity)) == identity
    assert identity == registry.identity(
        "scorer", "sample", {"steps": 2, "names": ["b", "c", "a"], "weight": 1}
    )
    assert identity != registry.identity("scorer", "sample", {"steps": 3, "names": ["c", "a", "b"]})


def test_two_strategies_with_equal_options_never_share_an_identity(site: Site) -> None:
    files = {f"stranger_pkg/{name}.py": site.scorer(name) for name in ("one", "two")}
    site.install("stranger", files, {"it": "stranger_pkg"})
    registry = site.discover()
    assert registry.identity("scorer", "one") != registry.identity("scorer", "two")


@pytest.mark.parametrize("edited", ["one.py", "_support.py", "support.py", "__init__.py", "deep/_more.py"])
def test_an_edit_of_a_strategy_or_of_what_it_may_use_changes_its_identity(site: Site, edited: str) -> None:
    names = ["__init__.py", "_support.py", "support.py", "deep/_more.py"]
    files = {f"stranger_pkg/{name}": "VALUE = 1\n" for name in names}
    site.install("stranger", files | {"stranger_pkg/one.py": site.scorer("one")}, {"it": "stranger_pkg"})
    before = site.discover().identity("scorer", "one")
    site.forget()
    file = site.folder / "stranger_pkg" / edited
    file.write_text(file.read_text() + "# edited\n")
    after = site.discover().identity("scorer", "one")
    assert before["digest"] != after["digest"]


def test_an_edit_of_a_neighbouring_strategy_leaves_the_identity_as_it_was(site: Site) -> None:
    files = {f"stranger_pkg/{name}.py": site.scorer(name) for name in ("one", "two")}
    points = {"all": "stranger_pkg", "again": "stranger_pkg.one"}
    site.install("stranger", files, points)
    before = site.discover().identity("scorer", "one")
    site.forget()
    site.write({"stranger_pkg/two.py": site.scorer("two") + "# edited\n"})
    assert site.discover().identity("scorer", "one") == before


def test_code_that_was_edited_after_its_import_is_refused(site: Site, tmp_path: Path) -> None:
    """Results of the old code would be stored under the new code's identity."""
    site.module(site.scorer("sample"))
    registry = site.discover()
    site.write({"stranger_module.py": site.scorer("sample") + "# edited\n"})
    with pytest.raises(PluginError, match="edited since it was listed"):
        registry.build("scorer", "sample")
    with pytest.raises(PluginError, match="edited after this process had imported it"):
        Registry.discover(cache_folder=tmp_path).build("scorer", "sample")
    site.forget()  # and the index has not kept that: the next process finds it whole
    assert [one.status for one in site.listed(registry=Registry.discover(cache_folder=tmp_path))] == ["ok"]
    assert Registry.discover(cache_folder=tmp_path).build("scorer", "sample") is not None


def test_identity_is_equal_in_every_process(site: Site) -> None:
    registry = rich(site)
    options = {"steps": 2, "names": ["x", "y", "z", "u", "v"]}
    code = (
        "import json, sys; from tlcore.registry import Registry;"
        "print(json.dumps(Registry.discover().identity('scorer', 'sample', json.loads(sys.argv[1]))))"
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONPATH": str(site.folder), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, json.dumps(options)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == registry.identity("scorer", "sample", options)


@given(kind=st.text(max_size=12), name=st.text(max_size=12))
def test_any_unknown_kind_or_name_is_a_users_mistake(kind: str, name: str) -> None:
    registry = Registry([])
    for wanted in (kind, "scorer"):
        with pytest.raises(UnknownName):
            registry.find(wanted, name)

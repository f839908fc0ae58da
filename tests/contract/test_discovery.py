from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tlcore.errors import PluginError, UnknownName, UserError
from tlcore.protocols import Scorer
from tlcore.registry import Registry

if TYPE_CHECKING:
    from conftest import Site


def test_each_public_module_of_a_package_is_registered(site: Site) -> None:
    files = {
        "stranger_pkg/__init__.py": "",
        "stranger_pkg/one.py": site.scorer("one"),
        "stranger_pkg/two/__init__.py": site.scorer("two"),
        "stranger_pkg/_private.py": site.scorer("private"),
        "stranger_pkg/support.py": "ANSWER = 42\n",
    }
    site.install("stranger", files, {"it": "stranger_pkg"}, version="3.1")
    entries = site.listed()
    assert [(one.kind, one.name, one.status) for one in entries] == [
        ("scorer", "one", "ok"),
        ("scorer", "two", "ok"),
    ]
    one = entries[0]
    assert (one.module, one.qualname, one.version) == ("stranger_pkg.one", "Sample", "3.1")
    assert (one.summary, one.reference, one.licence) == ("A constant.", "none, a sample", "Apache-2.0")
    assert one.schema["properties"]["weight"]["exclusiveMinimum"] == 0
    assert len(one.digest) == 64


def test_a_new_file_in_an_installed_package_is_a_new_strategy(site: Site, tmp_path: Path) -> None:
    site.install("stranger", {"stranger_pkg/one.py": site.scorer("one")}, {"it": "stranger_pkg"})
    assert [one.name for one in site.listed(registry=Registry.discover(cache_folder=tmp_path))] == ["one"]
    site.write({"stranger_pkg/two.py": site.scorer("two")})
    assert [one.name for one in site.listed(registry=Registry.discover(cache_folder=tmp_path))] == [
        "one",
        "two",
    ]


def test_an_entry_point_that_names_a_module_registers_that_module_alone(site: Site) -> None:
    files = {"stranger_pkg/__init__.py": "", "stranger_pkg/one.py": site.scorer("one")}
    files["stranger_pkg/two.py"] = site.scorer("two")
    site.install("stranger", files, {"it": "stranger_pkg.one"})
    assert [one.name for one in site.listed()] == ["one"]


def test_a_class_reached_by_two_entry_points_or_re_exported_is_listed_once(site: Site) -> None:
    files = {
        "stranger_pkg/__init__.py": "from stranger_pkg.one import tlcore_scorers\n",
        "stranger_pkg/one.py": site.scorer("one"),
    }
    site.install("stranger", files, {"it": "stranger_pkg", "again": "stranger_pkg.one"})
    assert [(one.name, one.status) for one in site.listed()] == [("one", "ok")]


def test_a_built_in_comes_through_the_same_door() -> None:
    entries = [one for one in Registry.discover().entries if one.distribution == "tlcore"]
    assert entries
    assert {one.module.partition(".")[0] for one in entries} <= {
        f"tlcore_{part}"
        for part in ("data", "models", "scorers", "adapters", "tuners", "validators", "exporters")
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import no_such_library_xyz", "No module named 'no_such_library_xyz' (stranger_module.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3 (stranger_module.py, line 1)"),
        ("class Stop(BaseException): pass\nraise Stop('now')", "Stop: now (stranger_module.py, line 2)"),
        ("def (:", "SyntaxError: invalid syntax"),
        ("1 / 0\n" + "x" * 10, "ZeroDivisionError: division by zero (stranger_module.py, line 1)"),
        (
            "class Mute(Exception):\n    def __str__(self): raise TypeError('mute')\nraise Mute",
            "Mute: it cannot say why",
        ),
        ("raise OSError('no file a\\udc80')", "OSError: no file a?"),
        ("raise ValueError('a\\n\\nb ' + 'c' * 5000)", "ValueError: a b ccc"),
    ],
)
def test_a_module_that_fails_to_import_is_listed_with_its_reason_in_one_line(
    site: Site, line: str, reason: str
) -> None:
    (entry,) = site.module(line + "\n" + site.scorer("sample"))
    assert (entry.kind, entry.name, entry.status) == ("scorer", "sample", "broken")
    assert reason in entry.error
    assert "\n" not in entry.error and len(entry.error) < 400


def test_a_broken_plugin_breaks_only_the_runs_that_name_it(site: Site) -> None:
    site.install("other", {"other_module.py": site.scorer("whole")}, {"it": "other_module"})
    site.module("import no_such_library_xyz\n" + site.scorer("sample"))
    registry = Registry.discover()
    assert registry.build("scorer", "whole", {"weight": 2}).model_dump() == {"weight": 2.0}
    assert "sample" not in registry.names("scorer")
    with pytest.raises(
        PluginError, match='run.toml: scorer "sample" of stranger is broken: .*no_such_library'
    ) as caught:
        registry.build("scorer", "sample", {}, where="run.toml")
    assert caught.value.distribution == "stranger"
    assert "tlcore plugins" in caught.value.hint


def test_a_broken_plugin_works_as_soon_as_its_cause_is_gone(site: Site, tmp_path: Path) -> None:
    site.module("import late_library_xyz\n" + site.scorer("sample"))
    registry = Registry.discover(cache_folder=tmp_path)
    with pytest.raises(PluginError, match="late_library_xyz"):
        registry.find("scorer", "sample")
    site.write({"late_library_xyz.py": ""})  # no distribution: nothing in the index shows that it came
    assert isinstance(registry.build("scorer", "sample"), Scorer)
    assert [one.status for one in site.listed(registry=Registry.discover(cache_folder=tmp_path))] == ["ok"]


def test_a_failing_package_file_is_listed_at_each_of_its_modules(site: Site) -> None:
    files = {"stranger_pkg/__init__.py": "raise OSError('gone')", "stranger_pkg/one.py": site.scorer("one")}
    site.install("stranger", files, {"it": "stranger_pkg"})
    assert [(one.name, one.status, one.error) for one in site.listed()] == [
        ("one", "broken", "OSError: gone")
    ]


def test_an_interrupt_at_import_is_not_swallowed(site: Site) -> None:
    site.install("stranger", {"stranger_module.py": "raise KeyboardInterrupt"}, {"it": "stranger_module"})
    with pytest.raises(KeyboardInterrupt):
        Registry.discover()


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ({"it": "no_such_module_xyz"}, "there is no module no_such_module_xyz"),
        ({"it": "stranger_module.inner"}, "there is no module stranger_module.inner"),
        ({"it": "stranger_module:Sample"}, '"stranger_module:Sample" must name a module or a package'),
        ({"it": "../stranger"}, "must name a module or a package"),
        ({"it": "sys"}, "sys cannot be read"),
        ("a line without an equals sign", "entry_points.txt cannot be read"),
    ],
)
def test_a_faulty_entry_point_is_listed_and_harms_nothing_else(
    site: Site, points: dict[str, str] | str, reason: str
) -> None:
    site.install("stranger", {"stranger_module.py": site.scorer("sample")}, points)
    site.install("other", {"other_module.py": site.scorer("whole")}, {"it": "other_module"})
    registry = Registry.discover()
    (entry,) = site.listed(registry=registry)
    assert entry.status == "broken" and reason in entry.error
    assert "whole" in registry.names("scorer")


def test_unreadable_metadata_of_strangers_harms_nothing(site: Site) -> None:
    for name, data in {"a": b"\xff\xfe[tlcore]", "b": b"[console_scripts]\nno equals sign\n"}.items():
        info = site.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_bytes(data)
    nameless = site.folder / "nameless-1.0.dist-info"
    nameless.mkdir()
    (nameless / "entry_points.txt").write_text("[tlcore]\nit = no_such_module_xyz\n")
    assert Registry.discover().names("scorer") is not None


def test_a_module_that_registers_nothing_is_listed_as_broken(site: Site) -> None:
    (entry,) = site.module("ANSWER = 42\n")
    assert (entry.status, entry.name) == ("broken", "stranger-module")
    assert "registers nothing" in entry.error


def test_a_forgotten_hook_is_told_with_the_hook_to_add(site: Site) -> None:
    source = site.scorer("sample").partition("@hookimpl")[0]
    files = {"stranger_pkg/__init__.py": "", "stranger_pkg/one.py": source}
    site.install("stranger", files, {"it": "stranger_pkg"})
    (entry,) = site.listed()
    assert entry.status == "broken"
    assert "defines Sample and registers nothing: add @hookimpl def tlcore_scorers()" in entry.error


@pytest.mark.parametrize("plugin", [True, False])
def test_the_distribution_that_python_would_import_hides_the_one_behind_it(
    site: Site, tmp_path: Path, plugin: bool
) -> None:
    behind = tmp_path / "behind"
    files = {"stranger_module.py": site.scorer("new")}
    site.install("stranger", files, {"it": "stranger_module"}, version="2.0")
    if not plugin:
        (site.folder / "stranger-2.0.dist-info" / "entry_points.txt").unlink()
    site.install("stranger", {"old_module.py": site.scorer("old")}, {"it": "old_module"}, folder=behind)
    sys.path.append(str(behind))
    try:
        assert [(one.name, one.version) for one in site.listed()] == ([("new", "2.0")] if plugin else [])
    finally:
        sys.path.remove(str(behind))


def test_what_a_plugin_prints_stays_off_stdout(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    source = 'print("at import")\n' + site.scorer(
        "sample", "    return [Sample]", '    print("hook")\n    return [Sample]'
    )
    assert [one.status for one in site.module(source)] == ["ok"]
    captured = capsys.readouterr()
    assert captured.out == "" and "at import" in captured.err and "hook" in captured.err


def test_two_distributions_with_one_name_are_both_named_and_either_can_be_kept_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stranger-a", "stranger-b"):
        module = name.replace("-", "_") + "_module"
        site.install(name, {f"{module}.py": site.scorer("sample")}, {"it": module})
    registry = Registry.discover()
    assert [one.status for one in registry.entries if one.name == "sample"] == ["duplicate", "duplicate"]
    assert "sample" not in registry.names("scorer")
    with pytest.raises(PluginError) as caught:
        registry.build("scorer", "sample")
    for part in (
        "stranger-a (stranger_a_module)",
        "stranger-b (stranger_b_module)",
        "TLCORE_BLOCK_PLUGINS=stranger-b",
    ):
        assert part in str(caught.value)
    monkeypatch.setenv("TLCORE_BLOCK_PLUGINS", "other , Stranger_B")
    registry = Registry.discover()
    assert registry.find("scorer", "sample").distribution == "stranger-a"


def test_a_name_used_twice_in_one_distribution_is_told(site: Site) -> None:
    files = {"stranger_pkg/one.py": site.scorer("sample"), "stranger_pkg/two.py": site.scorer("sample")}
    site.install("stranger", files, {"it": "stranger_pkg"})
    entries = site.listed()
    assert [one.status for one in entries] == ["duplicate", "duplicate"]
    assert "stranger_pkg.one" in entries[0].error and "stranger must rename one" in entries[0].error


def test_a_strangers_copy_of_a_built_in_name_is_to_be_kept_out_by_the_strangers_name(site: Site) -> None:
    site.module(site.scorer("logme"))
    with pytest.raises(PluginError, match="TLCORE_BLOCK_PLUGINS=stranger"):
        Registry.discover().find("scorer", "logme")


def test_a_blocked_distribution_is_listed_but_never_imported(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    source = site.scorer("sample")
    site.install("stranger", {"stranger_module.py": "raise SystemExit\n" + source}, {"it": "stranger_module"})
    registry = Registry.discover(block=["stranger", "strangr"])
    (entry,) = site.listed(registry=registry)
    assert (entry.kind, entry.name, entry.status) == ("scorer", "sample", "blocked")
    assert "stranger_module" not in sys.modules
    with pytest.raises(UserError, match="kept out by TLCORE_BLOCK_PLUGINS") as caught:
        registry.find("scorer", "sample")
    assert "take stranger out" in caught.value.hint
    assert '"strangr", which has no installed plugin' in caplog.text


@pytest.mark.parametrize(("api", "remedy"), [(99, "upgrade tlcore"), (0, "pip install --upgrade stranger")])
def test_another_hook_api_is_told_with_both_numbers_and_the_remedy(site: Site, api: int, remedy: str) -> None:
    (entry,) = site.module(site.scorer("sample", 'reference="none, a sample"', f'reference="", api={api}'))
    assert (entry.status, entry.api) == ("incompatible", api)
    with pytest.raises(PluginError) as caught:
        Registry.discover().build("scorer", "sample")
    assert f"hook API {api}, this tlcore has API 1" in str(caught.value) and remedy in str(caught.value)


def test_an_unknown_name_offers_the_nearest_and_the_list(site: Site) -> None:
    site.module(site.scorer("sample-score"))
    registry = Registry.discover()
    with pytest.raises(UnknownName) as caught:
        registry.find("scorer", "sample-scor", where="run.toml [selection]")
    assert caught.value.nearest == "sample-score"
    assert str(caught.value).startswith(
        'run.toml [selection]: no scorer named "sample-scor"; did you mean "sample-score"?'
    )
    assert "tlcore plugins" in caught.value.hint
    with pytest.raises(UnknownName, match='did you mean "scorer"'):
        registry.find("scorers", "sample-score")

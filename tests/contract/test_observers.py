from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tlcore.errors import UnknownName
from tlcore.registry import Registry

if TYPE_CHECKING:
    from conftest import Site

WATCHER = '''"""Writes down what it sees."""
from tlcore.hookspecs import hookimpl

seen = []

@hookimpl
def tlcore_run_started(run):
    seen.append(("started", run["id"]))
    CODE

@hookimpl
def tlcore_stage_finished(stage):
    seen.append(("stage", stage["name"]))
'''


def watch(site: Site, **codes: str) -> Registry:
    for name, code in codes.items():
        site.install(name, {f"{name}_module.py": WATCHER.replace("CODE", code)}, {"it": f"{name}_module"})
    return site.discover()


def seen(name: str) -> list[Any]:
    found = sys.modules[f"{name}_module"].seen
    assert isinstance(found, list)
    return found


def test_an_observer_is_listed_and_hears_the_hooks_that_it_implements(site: Site) -> None:
    registry = watch(site, alone="pass")
    (entry,) = site.listed("alone", registry)
    assert (entry.kind, entry.name, entry.summary) == (
        "observer",
        "alone-module",
        "Writes down what it sees.",
    )
    registry.notify("tlcore_run_started", run={"id": "r1", "name": "n", "store": "s"})
    registry.notify("tlcore_stage_finished", run={"id": "r1"}, stage={"name": "score"})
    registry.notify("tlcore_run_finished", run={"id": "r1"}, outcome={"state": "completed", "error": None})
    assert seen("alone") == [("started", "r1"), ("stage", "score")]
    assert [module.__name__ for module in registry.observers()] == ["alone_module"]


@pytest.mark.parametrize("code", ["1 / 0", "raise SystemExit(1)", "raise BaseException('x')"])
def test_an_observer_that_raises_stops_no_other_and_is_logged_once_a_run(
    site: Site, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    registry = watch(site, alone="pass", broken=code, zealous="pass")
    for run in ("r1", "r1", "r2"):
        registry.notify("tlcore_run_started", run={"id": run})
    for name in ("alone", "broken", "zealous"):
        assert seen(name) == [("started", "r1"), ("started", "r1"), ("started", "r2")]
    assert [record.getMessage().partition(" failed")[0] for record in caplog.records] == [
        "observer broken_module"
    ] * 2


def test_an_interrupt_passes_through_an_observer(site: Site) -> None:
    registry = watch(site, broken="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry.notify("tlcore_run_started", run={"id": "r1"})


def test_an_observer_looks_and_never_touches(site: Site) -> None:
    registry = watch(
        site, alone="run['id'] = 'mine'; run['inner'].append(1)", zealous="seen.append(run['inner'])"
    )
    run = {"id": "r1", "inner": []}
    registry.notify("tlcore_run_started", run=run)
    assert run == {"id": "r1", "inner": []}
    assert seen("zealous") == [("started", "r1"), []]


def test_an_observer_that_cannot_be_imported_any_more_is_logged_and_left_out(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch(site, alone="pass", broken="pass")
    registry = Registry.discover(cache_folder=tmp_path)
    site.forget()
    (site.folder / "broken_module.py").unlink()
    assert [module.__name__ for module in registry.observers()] == ["alone_module"]
    assert "observer broken_module is left out: ModuleNotFoundError" in caplog.text


def test_an_observer_with_an_argument_that_is_never_filled_is_broken(site: Site) -> None:
    source = WATCHER.replace("(run)", "(run=None)").replace("CODE", "pass")
    (entry,) = site.module(source)
    assert entry.status == "broken" and "argument run must be plain" in entry.error


def test_a_blocked_observer_is_not_called(site: Site) -> None:
    watch(site, alone="pass")
    site.forget()
    registry = Registry.discover(block=["alone"])
    registry.notify("tlcore_run_started", run={"id": "r1"})
    assert "alone_module" not in sys.modules


def test_only_observer_hooks_can_be_notified(site: Site) -> None:
    with pytest.raises(UnknownName, match='did you mean "tlcore_run_started"'):
        Registry([]).notify("tlcore_run_start")
    with pytest.raises(UnknownName):
        Registry([]).notify("tlcore_scorers")


def test_a_module_may_bring_a_strategy_and_watch(site: Site) -> None:
    source = site.scorer("sample") + "\n@hookimpl\ndef tlcore_run_started(run): ...\n"
    assert [(one.kind, one.name) for one in site.module(source)] == [
        ("scorer", "sample"),
        ("observer", "sample"),
    ]

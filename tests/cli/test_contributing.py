"""The example in CONTRIBUTING.md is what it says: one file and its test, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def blocks() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_strategy_passes_its_test(blocks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, its_test = blocks
    module = ModuleType("tlcore_scorers.trace_ratio")
    # Annotations of a pydantic class are looked up in its module.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(strategy, "trace_ratio.py", "exec"), module.__dict__)
    names: dict[str, object] = {}
    exec(compile(its_test, "test_trace_ratio.py", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for one in tests:
        one()  # type: ignore[operator]


def test_the_strategy_keeps_the_contract(blocks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tlcore.registry.contract import check

    module = ModuleType("tlcore_scorers.trace_ratio")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(blocks[0], "trace_ratio.py", "exec"), module.__dict__)
    (scorer,) = module.tlcore_scorers()
    assert check("scorer", scorer).name == "trace-ratio"

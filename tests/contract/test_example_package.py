"""tests/example_plugin, installed by pip as a stranger's package, comes through its real entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LISTING = """
import json, sys
from pathlib import Path
from tlcore.registry import Registry
registry = Registry.discover(cache_folder=Path(sys.argv[1]))
own = [one for one in registry.entries if one.distribution == "tlcore-example"]
print(json.dumps({
    "entries": [[one.kind, one.name, one.status, one.error] for one in own],
    "identities": [registry.identity(one.kind, one.name) for one in own if not one.schema.get("required")],
    "blocked": [
        one.status for one in Registry.discover(block=["tlcore_example"]).entries
        if one.distribution == "tlcore-example"
    ],
}))
"""


@pytest.mark.slow
def test_an_installed_package_adds_its_strategies(example_plugin: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(example_plugin)}
    command = [sys.executable, "-c", LISTING, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    assert {kind for kind, *_ in listed["entries"]} == {"scorer", "model-source"}
    assert all(status == "ok" and error == "" for _, _, status, error in listed["entries"])
    assert {one["kind"] for one in listed["identities"]} >= {"scorer"}
    assert all(one["distribution"] == "tlcore-example" and one["version"] for one in listed["identities"])
    assert set(listed["blocked"]) == {"blocked"}

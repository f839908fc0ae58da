from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tlcore.registry import Registry

if TYPE_CHECKING:
    from conftest import Site

HEAVY = (
    "torch",
    "timm",
    "torchvision",
    "prefect",
    "pandera",
    "polars",
    "scipy",
    "sklearn",
    "onnxruntime",
    "matplotlib",
)

LISTING = f"""
import json, sys
from pathlib import Path
from tlcore.registry import Registry
registry = Registry.discover(cache_folder=Path(sys.argv[1]))
plugins = [one.module for one in registry.entries if one.module in sys.modules]
print(json.dumps({{
    "heavy": [name for name in {HEAVY!r} if name in sys.modules],
    "imported": plugins,
    "entries": [[one.kind, one.name, one.status, one.error] for one in registry.entries],
}}))
"""


def listing(site: Site, cache: Path) -> dict[str, list[object]]:
    """What another process sees that lists everything and names nothing."""
    environment = os.environ | {"PYTHONPATH": str(site.folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LISTING, str(cache)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


@pytest.mark.slow
def test_a_second_listing_imports_no_plugin_and_nothing_heavy(site: Site, tmp_path: Path) -> None:
    files = {"broken_module.py": "import no_such_library_xyz\n" + site.scorer("broken")}
    site.install("broken", files, {"it": "broken_module"})
    site.install(
        "stranger",
        {"stranger_module.py": "import polars\n" + site.scorer("sample")},
        {"it": "stranger_module"},
    )
    first = listing(site, tmp_path)
    second = listing(site, tmp_path)
    assert "stranger_module" in first["imported"] and "polars" in first["heavy"]
    assert second["imported"] == [] and second["heavy"] == []
    assert second["entries"] == first["entries"]
    assert ["scorer", "sample", "ok", ""] in second["entries"]
    assert any(entry[1] == "broken" and "no_such_library_xyz" in str(entry[3]) for entry in second["entries"])  # type: ignore[index]


@pytest.mark.slow
def test_listing_the_built_ins_for_the_first_time_imports_nothing_heavy(site: Site, tmp_path: Path) -> None:
    assert listing(site, tmp_path)["heavy"] == []


@pytest.mark.slow
def test_the_index_follows_an_edit_a_new_version_and_a_removal(site: Site, tmp_path: Path) -> None:
    def seen() -> list[tuple[str, str]]:
        site.forget()
        return [
            (one.name, one.version) for one in site.listed(registry=Registry.discover(cache_folder=tmp_path))
        ]

    site.install("stranger", {"stranger_module.py": site.scorer("sample")}, {"it": "stranger_module"})
    assert seen() == [("sample", "1.0")]
    site.write({"stranger_module.py": site.scorer("renamed")})
    assert seen() == [("renamed", "1.0")]
    info = site.folder / "stranger-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.1\n")
    assert seen() == [("renamed", "1.1")]
    (info / "entry_points.txt").unlink()
    assert seen() == []


def test_an_edit_that_keeps_the_size_is_seen_by_its_time(site: Site, tmp_path: Path) -> None:
    site.install("stranger", {"stranger_module.py": site.scorer("sample")}, {"it": "stranger_module"})
    before = Registry.discover(cache_folder=tmp_path).find("scorer", "sample")
    site.forget()
    site.write({"stranger_module.py": site.scorer("simple")})
    file = site.folder / "stranger_module.py"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    after = Registry.discover(cache_folder=tmp_path).find("scorer", "simple")
    assert before.digest != after.digest


def test_a_plugin_broken_by_a_missing_library_is_whole_once_that_is_installed(
    site: Site, tmp_path: Path
) -> None:
    source = "import late_library_xyz\n" + site.scorer("sample")
    site.install("stranger", {"stranger_module.py": source}, {"it": "stranger_module"})
    assert [one.status for one in site.listed(registry=Registry.discover(cache_folder=tmp_path))] == [
        "broken"
    ]
    site.install("late-library", {"late_library_xyz.py": ""}, {})
    assert [one.status for one in site.listed(registry=Registry.discover(cache_folder=tmp_path))] == ["ok"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b'{"contract": 1}',
        b"[" * 100_000,
        b'{"contract": "x", "groups": {"a": 3}}',
    ],
)
def test_a_corrupt_index_is_made_again_without_a_word(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Registry.discover(cache_folder=tmp_path).entries
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    file.write_bytes(damage)
    assert Registry.discover(cache_folder=tmp_path).entries == whole
    assert file.read_bytes() == written
    assert caplog.text == "" and capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_an_index_with_one_line_of_another_shape_is_made_again(tmp_path: Path) -> None:
    whole = Registry.discover(cache_folder=tmp_path).entries
    (file,) = tmp_path.iterdir()
    index = json.loads(file.read_text())
    group = next(group for group in index["groups"].values() if group["entries"])
    group["entries"][0]["status"] = "excellent"
    file.write_text(json.dumps(index))
    assert Registry.discover(cache_folder=tmp_path).entries == whole


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    whole = Registry.discover().entries
    assert Registry.discover(cache_folder=blocked / "cache").entries == whole
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert Registry.discover(cache_folder=locked).entries == whole
    finally:
        locked.chmod(stat.S_IRWXU)


@pytest.mark.slow
def test_the_index_is_one_file_and_leaves_no_rest(site: Site, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "deep"
    site.install("stranger", {"stranger_module.py": site.scorer("sample")}, {"it": "stranger_module"})
    for name in ("sample", "other"):
        site.forget()
        site.write({"stranger_module.py": site.scorer(name)})
        Registry.discover(cache_folder=cache)
    assert [file.name for file in cache.iterdir()] == ["plugins.json"]


@pytest.mark.slow
def test_a_blocked_distribution_is_listed_from_the_index_as_it_was(site: Site, tmp_path: Path) -> None:
    site.install("stranger", {"stranger_module.py": site.scorer("sample")}, {"it": "stranger_module"})
    Registry.discover(cache_folder=tmp_path)
    site.forget()
    (entry,) = site.listed(registry=Registry.discover(cache_folder=tmp_path, block=["stranger"]))
    assert (entry.status, entry.summary) == ("blocked", "A constant.")
    (entry,) = site.listed(registry=Registry.discover(cache_folder=tmp_path))
    assert entry.status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("default", ["float('inf')", "float('nan')", "'\\udc80 é \\x00'"])
def test_unusual_defaults_do_not_spoil_the_index(site: Site, tmp_path: Path, default: str) -> None:
    kind = "str" if "udc" in default else "float"
    source = site.scorer("sample", "weight: float = Field(1.0, gt=0,", f"weight: {kind} = Field({default},")
    site.install("stranger", {"stranger_module.py": source}, {"it": "stranger_module"})
    listing(site, tmp_path)
    assert listing(site, tmp_path)["imported"] == []

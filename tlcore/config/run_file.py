"""The run file: TOML, and where the relative paths in it lead."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from tlcore.config.choices import data_choice, model_choice
from tlcore.errors import UserError

__all__ = ["load_run_file"]


def load_run_file(path: Path, *, command: str = "run") -> dict[str, Any]:
    """The run file as plain data, with relative paths made absolute against the file's folder.

    Raises:
        UserError: no such file, or not TOML (with line and column).
    """
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else [], n=1
        )
        raise UserError(
            "no such run file" + (f'; did you mean "{near[0]}"?' if near else ""),
            where=str(path),
            hint=f"tlcore {command} --data FOLDER --models local:FOLDER",
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not TOML: {error}", where=str(path)) from None
    return _anchor(document, path.parent.resolve())


def _anchor(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative places in the file's own terms: data.source, data.target, the specs of local models, result tables."""

    def place(text: str) -> str:
        return str((folder / Path(text).expanduser()).resolve())

    data = document.get("data")
    if isinstance(data, dict):
        for key in ("source", "target"):
            if isinstance(data.get(key), str):
                data[key] = data_choice(data[key])
            if isinstance(data.get(key), dict):
                options = data[key].get("options", data[key])
                for name in ("path", "root"):
                    if isinstance(options.get(name), str):
                        options[name] = place(options[name])
    selection = document.get("selection")
    if isinstance(selection, dict) and isinstance(selection.get("results"), str):
        selection["results"] = place(selection["results"])
    given = document.get("models")
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list):
        document["models"] = [_anchored_model(entry, folder) for entry in given]
    return document


def _anchored_model(entry: Any, folder: Path) -> Any:
    if isinstance(entry, str) and entry.partition(":")[2]:
        entry = model_choice(entry)
    if isinstance(entry, dict):
        options = entry["options"] if isinstance(entry.get("options"), dict) else entry
        spec = options.get("spec")
        if isinstance(spec, str):
            place = (folder / Path(spec).expanduser()).resolve()
            architecture, at, file = spec.partition("@")
            beside = (folder / Path(file).expanduser()).resolve() if at else None
            # A spec of another source may be a hub name or a glob: only what exists beside the file is a path.
            if entry.get("name") == "local" or place.exists():
                options["spec"] = str(place)
            elif beside is not None and beside.is_file():
                options["spec"] = f"{architecture}@{beside}"
    return entry

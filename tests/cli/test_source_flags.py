from __future__ import annotations

from pathlib import Path

from tlcore_flows import cli_flags


def source(tmp_path: Path, file: Path | None = None, **given: str) -> dict[str, object]:
    made = cli_flags.document(file, {"models": ["local:zoo"], **given}, (), allow_download=False)
    found = made["data"]["source"]
    return {
        "name": found["name"],
        **found.get("options", {}),
        **{k: v for k, v in found.items() if k not in {"name", "options"}},
    }


def test_a_table_may_stand_where_a_run_file_does(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("uri,age\n")
    assert source(tmp_path, table) == {"name": "manifest", "path": str(table)}
    assert source(tmp_path, tmp_path) == {"name": "image-folder", "path": str(tmp_path)}


def test_flags_of_the_label_column_go_to_the_source(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("uri,age\n")
    expected = {"name": "manifest", "path": str(table), "label": "age", "task": "regression"}
    assert source(tmp_path, table, label_column="age", task="regression") == expected
    assert source(tmp_path, data=str(table), label_column="age", task="regression") == expected


def test_flags_of_the_label_column_mend_a_source_of_a_run_file(tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text('models = ["local:zoo"]\n[data]\nsource = "people.csv"\n')
    found = source(tmp_path, run, separator=";")
    assert (found["name"], found["separator"]) == ("manifest", ";")
    assert str(found["path"]).endswith("people.csv")

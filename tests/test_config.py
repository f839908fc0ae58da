"""The boundary where text becomes types."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlcore.config import RunConfig, data_choice, load_run_file, model_choice, parse_config
from tlcore.errors import UserError

MINIMAL = {"data": {"source": "photos"}, "models": ["local:zoo"]}


def test_a_folder_a_csv_and_a_parquet_file_find_their_source() -> None:
    assert data_choice("photos")["name"] == "image-folder"
    assert data_choice("photos/table.CSV")["name"] == data_choice("t.parquet")["name"] == "manifest"
    assert data_choice("digits:/data/d") == {"name": "digits", "options": {"path": "/data/d"}}


def test_a_windows_drive_is_no_strategy_name() -> None:
    assert data_choice("C:\\photos")["name"] == "image-folder"


def test_a_model_without_its_source_is_an_error_that_shows_the_forms() -> None:
    with pytest.raises(ValueError, match="timm:NAME"):
        model_choice("resnet18")
    with pytest.raises(UserError, match="timm:NAME"):
        parse_config({**MINIMAL, "models": ["resnet18"]})


def test_a_strategy_is_a_name_or_a_table_with_its_options_beside_the_name() -> None:
    config = parse_config({**MINIMAL, "finetune": {"try": ["linear-probe", {"name": "lp-ft", "epochs": 3}]}})
    assert [(c.name, c.options) for c in config.finetune.strategies] == [
        ("linear-probe", {}),
        ("lp-ft", {"epochs": 3}),
    ]


def test_a_target_folder_need_not_be_sorted_by_class() -> None:
    config = parse_config({**MINIMAL, "data": {"source": "a", "target": "b"}})
    assert config.data.target is not None and config.data.target.options == {"labelled": False, "path": "b"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sead": 1}, 'unknown option "sead"; did you mean "seed"?'),
        (
            {"data": {"source": "a", "valdation": 0.1}},
            'unknown option "data.valdation"; did you mean "validation"?',
        ),
        ({"finetune": {"tri": ["full"]}}, 'did you mean "try"?'),
        ({"seed": -1}, '"seed": Input should be greater than or equal to 0 (given: -1)'),
        ({"models": []}, '"models"'),
        ({"device": "gpu"}, '"device"'),
        ({"data": {}}, '"data.source" is missing'),
    ],
)
def test_a_wrong_entry_is_named_with_its_section_and_the_nearest_name(
    change: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        parse_config({**MINIMAL, **change}, where="run.toml")
    assert (
        said in str(caught.value)
        and str(caught.value).startswith("run.toml: ")
        and caught.value.exit_code == 2
    )


def test_the_document_of_a_configuration_parses_to_itself() -> None:
    config = parse_config({**MINIMAL, "adapt": {"try": [{"name": "dann", "weight": 2}]}})
    assert RunConfig.model_validate(config.document()) == config


def test_paths_in_a_run_file_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    file = tmp_path / "run.toml"
    file.write_text(
        'models = ["local:zoo", "timm:resnet18"]\n[data]\nsource = "photos"\ntarget = {name = "manifest", path = "t.csv"}\n'
    )
    config = parse_config(load_run_file(file))
    assert config.data.source.options["path"] == str(tmp_path / "photos")
    assert config.data.target is not None and config.data.target.options["path"] == str(tmp_path / "t.csv")
    assert [c.options["spec"] for c in config.models] == [str(tmp_path / "zoo"), "resnet18"]


def test_a_local_model_in_a_table_of_a_run_file_is_relative_to_the_file_as_well(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'models = [{name = "local", spec = "w"}, {name = "local", options = {spec = "v"}}]\n[data]\nsource = "p"\n'
    )
    config = parse_config(load_run_file(file))
    assert [c.options["spec"] for c in config.models] == [str(tmp_path / "w"), str(tmp_path / "v")]


def test_an_architecture_with_a_file_in_a_run_file_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mine.safetensors").touch()
    file = tmp_path / "run.toml"
    file.write_text(
        'models = ["open-clip:ViT-B-32@weights/mine.safetensors", "open-clip:ViT-B-32@laion2b_s34b_b79k"]\n'
        '[data]\nsource = "p"\n'
    )
    config = parse_config(load_run_file(file))
    assert [choice.options["spec"] for choice in config.models] == [
        f"ViT-B-32@{tmp_path / 'weights' / 'mine.safetensors'}",
        "ViT-B-32@laion2b_s34b_b79k",
    ]


def test_one_model_needs_no_list(tmp_path: Path) -> None:
    assert parse_config({**MINIMAL, "models": "local:zoo"}).models[0].options == {"spec": "zoo"}


def test_a_missing_or_broken_run_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs.toml").write_text("x = ")
    with pytest.raises(UserError, match='did you mean "runs.toml"'):
        load_run_file(tmp_path / "run.toml")
    with pytest.raises(UserError, match="not TOML"):
        load_run_file(tmp_path / "runs.toml")


def test_a_result_table_in_a_run_file_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[selection]\nresults = "tables/results.csv"\n')
    place = load_run_file(tmp_path / "run.toml")["selection"]["results"]
    assert place == str(tmp_path.resolve() / "tables" / "results.csv")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1h 5s", 3605),
        ("1.5H", 5400),
        (600, 600),
    ],
)
def test_a_budget_is_seconds_or_hours_minutes_and_seconds(text: object, seconds: float) -> None:
    assert parse_config({**MINIMAL, "finetune": {"budget": text}}).finetune.budget == seconds


@pytest.mark.parametrize(
    "text", ["", "ten", "10m5", "5m1h", "m", "10 minutes", "1e3s", "0", "-5", "nan", True, [1]]
)
def test_any_other_budget_is_refused(text: object) -> None:
    with pytest.raises(UserError, match=r'"finetune.budget": '):
        parse_config({**MINIMAL, "finetune": {"budget": text}})


def test_no_budget_and_no_search_is_the_default() -> None:
    finetune = parse_config(MINIMAL).finetune
    assert (finetune.budget, finetune.search.trials, finetune.soup) == (None, 0, False)
    assert (finetune.validation, finetune.folds) == ("auto", 5)


@pytest.mark.parametrize(
    ("finetune", "said"),
    [
        ({"soup": True}, "set search.trials (--trials 10)"),
        ({"soup": True, "search": {"trials": 1}}, "set search.trials"),
        ({"search": {"trials": -1}}, "finetune.search.trials"),
        ({"search": {"tials": 1}}, 'did you mean "trials"?'),
        ({"search": {"bounds": {"lr": [1e-2, 1e-5]}}}, "the bounds of lr are from 0.01 to 1e-05: write [low, high]"),
        ({"search": {"bounds": {"lr": [0.1]}}}, "finetune.search.bounds.lr"),
        ({"search": {"bounds": {"lr": [0.1, float("inf")]}}}, "finite"),
        ({"validation": "loo"}, "'held-out'"),
        ({"folds": 1}, "finetune.folds"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_named_with_its_option(finetune: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config({**MINIMAL, "finetune": finetune})
    assert said in str(caught.value)


def test_precision_and_processes_of_training_have_bounds() -> None:
    compute = parse_config({**MINIMAL, "compute": {"precision": "bf16", "processes": 2}}).compute
    assert (compute.precision, compute.processes) == ("bf16", 2)
    for wrong in ({"precision": "fp16"}, {"processes": 0}):
        with pytest.raises(UserError, match="compute"):
            parse_config({**MINIMAL, "compute": wrong})

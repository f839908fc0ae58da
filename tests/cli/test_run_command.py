"""`tlcore run` and `tlcore rank` up to the point where a server would be started."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tlcore.config import RunConfig, StrategyChoice, parse_config
from tlcore.errors import UserError
from tlcore.registry import Registry
from tlcore_flows import cli_flags, server, strategies


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake is told before anything is started."""

    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a server was about to be started")

    monkeypatch.setattr(server, "session", started)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
    return tmp_path / "images"


def options(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every option of a run file, by its dotted name."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, StrategyChoice):
            yield from options(kind, f"{path}.")
        else:
            yield path


def test_every_option_of_a_run_file_has_a_flag() -> None:
    assert sorted(options()) == sorted(flag.path for flag in cli_flags.FLAGS)


def test_the_help_shows_every_flag_with_its_default(tlcore: Callable[..., Any]) -> None:
    text = tlcore("run", "--help").out
    for flag in cli_flags.FLAGS:
        assert flag.name in text
    for default in ("default: 0.15", "default: linear-probe auto", "default: 100 000 000", "required"):
        assert default in text


def test_the_help_of_rank_leaves_out_what_comes_after_the_ranking(tlcore: Callable[..., Any]) -> None:
    text = tlcore("rank", "--help").out
    assert "--scorer" in text
    assert "--tuner" not in text


def test_figures_are_offered_by_rank_alone_and_a_bad_folder_is_named_before_anything_starts(
    images: Path, tlcore: Callable[..., Any]
) -> None:
    assert "--figures" in tlcore("rank", "--help").out
    assert "--figures" not in tlcore("run", "--help").out
    (images / "file").write_text("in the way")
    folder = images / "file" / "figures"
    outcome = tlcore("rank", "--data", images, "--models", f"local:{images}", "--figures", folder)
    assert outcome.code == 2 and str(folder) in outcome.err and "Traceback" not in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scorer", "logmee"], ['no scorer named "logmee"', 'did you mean "logme"?']),
        (["--tuner", "lpft"], ['no tuner named "lpft"', 'did you mean "lp-ft"?']),
        (["--tuner", "lp-ft:epoch=3"], ["epoch", "epochs"]),
        (["--tuner", "lp-ft:epochs=none"], ["epochs"]),
        (["--tuner", "lp-ft:epochs"], ["epochs", "NAME:key=value"]),
        (["--set", "selection.shortlst=3"], ["shortlst", 'did you mean "shortlist"?']),
        (["--set", "seed"], ["--set", "section.key=value"]),
        (["--seed", "-1"], ["seed", "greater than or equal to 0"]),
        (["--models", "resnet18"], ["resnet18", "names no model source"]),
        (["--device", "gpu"], ["device"]),
        (["--cluster", "bad"], ["no cluster at an address for the runner sequential", "--runner dask"]),
        (["--runner", "dask", "--cluster", "bad"], ['"bad" is no address of a cluster', "tcp://HOST:8786"]),
        (["--results", "missing.csv"], ["no such result table", "missing.csv", "results-imagenet.csv"]),
        (["--models", ""], ["names no model source", "tlcore plugins --kind model-source"]),
        (["--budget", "ten"], ["finetune.budget", "90s, 10m or 1h30m"]),
        (["--budget", "0s"], ["finetune.budget", "greater than 0"]),
        (["--soup"], ["--trials 10"]),
        (["--trials", "4", "--search", "learning"], ['no option of the strategies named "learning"']),
        (["--trials", "4", "--search", "lrr"], ['did you mean "lr"?']),
        (["--trials", "4", "--search", "randaugment"], ["randaugment", "cannot be searched"]),
        (["--trials", "4", "--search-bounds", "lr=[1e-9, 1]"], ["outside the own bounds", "1e-09 to 1"]),
        (["--trials", "4", "--search-bounds", "epochs=[1, 3]"], ["searched option", "--search epochs"]),
        (["--search-bounds", "lr=1e-3"], ["finetune.search.bounds.lr"]),
        (["--search-bounds", "lr"], ["are no bounds", "lr=[1e-5, 1e-2]"]),
        (["--validate-by", "loo"], ["finetune.validation", "cross-validation"]),
        (["--precision", "fp8"], ["compute.precision", "bf16"]),
        (["--processes", "0"], ["compute.processes"]),
        (["--tuner", "distill"], ["distill learns from a teacher", "--tuner lp-ft --tuner distill"]),
        (
            ["--tuner", "lp-ft", "--tuner", "distill", "--validate-by", "cross-validation"],
            ["would flatter it", "--validate-by held-out"],
        ),
        (
            ["--tuner", "full:randaugment=rand-q9"],
            ['no augmentation policy "rand-q9"', "finetune.try, full", "rand-m9"],
        ),
        (
            ["--tuner", "lp-ft", "--tuner", "zero-shot"],
            ["zero-shot reads class names", "--models open-clip:FOLDER"],
        ),
        (["--verify-ranking", "--verify-with", "clip-probe"], ["selection.verify_with", "text tower"]),
        (["--budget", "-3"], ["finetune.budget", "greater than 0"]),
        (["--trials", "1", "--soup"], ["--trials 10"]),
        (["--precision", "fp16"], ["compute.precision", "bf16"]),
        (["--folds", "1"], ["finetune.folds", "greater than or equal to 2"]),
        (["--scratch", "distill"], ["evaluation.scratch", "distill learns from a teacher"]),
    ],
)
def test_a_mistake_is_named_before_anything_starts(
    arguments: list[str], words: list[str], images: Path, tlcore: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = tlcore("run", "--data", images, "--models", f"local:{images}", *arguments)
    assert outcome.code == 2, outcome.err
    for word in words:
        assert word in outcome.err
    assert outcome.out == ""
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", ["run", "rank"])
@pytest.mark.parametrize(
    "arguments",
    [["--seed", "-1"], ["--data", "nowhere/at/all"], ["missing.toml"]],
    ids=["value", "place", "file"],
)
def test_the_next_step_names_the_command_in_use(
    command: str, arguments: list[str], images: Path, tlcore: Callable[..., Any]
) -> None:
    outcome = tlcore(command, "--data", images, "--models", f"local:{images}", *arguments)
    assert outcome.code == 2
    assert f"next:  tlcore {command} --" in outcome.err


@pytest.mark.parametrize("command", ["run", "rank"])
def test_a_device_that_this_machine_lacks_is_named_before_anything_starts(
    command: str, images: Path, tlcore: Callable[..., Any]
) -> None:
    import torch

    if torch.cuda.device_count() > 99:
        pytest.skip("this machine has them all")
    given = ["--data", images, "--models", f"local:{images}", "--device", "cuda:99"]
    outcome = tlcore(command, *given)
    assert outcome.code == 2
    assert '"cuda:99" cannot be used' in outcome.err and "known: cpu" in outcome.err
    assert "next:  --device cpu" in outcome.err and "Traceback" not in outcome.err


def test_the_help_lists_the_names_that_an_option_takes(tlcore: Callable[..., Any]) -> None:
    text = " ".join(tlcore("run", "--help").out.replace("│", " ").split())
    for names in (
        "one of sequential, threads, dask, ray",
        "one of auto, eager, folded, bf16, onnxruntime, compiled",
        "one of none, halving",
        "one of auto, held-out, cross-validation",
        "one of auto, fp32, bf16",
    ):
        assert names in text


def test_a_folder_that_is_not_there_is_named_with_the_nearest(
    images: Path, tlcore: Callable[..., Any]
) -> None:
    outcome = tlcore("run", "--data", images.parent / "imgaes", "--models", f"local:{images}", "--json")
    assert outcome.code == 2
    error = json.loads(outcome.out)["error"]
    assert 'did you mean "images"?' in error["what"]
    assert "data.source" in error["where"]


def test_brackets_in_a_name_are_no_markup(tlcore: Callable[..., Any]) -> None:
    outcome = tlcore("run", "[red]x.toml", "--models", "local:x")
    assert outcome.code == 2
    assert "[red]x.toml" in outcome.err


def test_a_run_file_that_is_not_toml_is_named_with_its_line(
    tlcore: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text("name = \n")
    outcome = tlcore("run", "run.toml")
    assert outcome.code == 2
    assert "run.toml" in outcome.err
    assert "line 1" in outcome.err


def test_adapters_are_not_checked_without_a_target(images: Path) -> None:
    config = parse_config(
        {"data": {"source": str(images)}, "models": ["local:x"], "adapt": {"try": ["no-such-adapter"]}}
    )
    assert "adapter" not in {kind for _, kind, _ in strategies.chosen(config)}
    table = {"data": {"source": "pacs.csv", "target_domain": "sketch"}, "models": ["local:x"]}
    assert "adapter" in {kind for _, kind, _ in strategies.chosen(parse_config(table))}


def test_a_validator_named_twice_is_refused_before_anything_is_started(images: Path) -> None:
    config = parse_config(
        {
            "data": {"source": str(images), "target": str(images)}, "models": [f"local:{images}"],
            "adapt": {"validators": ["im", "bnm", "im"]},
        }
    )  # fmt: skip
    with pytest.raises(UserError, match="named twice: im, bnm, im"):
        strategies.check(config, Registry.discover())


@pytest.mark.parametrize("adapter", ["tent:bottleneck=64", "tent:train=head", "fixmatch:train=head"])
def test_options_that_an_adapter_cannot_have_together_are_refused_before_anything_is_started(
    images: Path, adapter: str
) -> None:
    document = made(
        ("adapt", [adapter]), ("data", str(images)), ("target", str(images)), ("models", [f"local:{images}"])
    )
    with pytest.raises(UserError, match="cannot"):
        strategies.check(parse_config(document), Registry.discover())


def made(*flags: tuple[str, Any], file: Path | None = None, allow_download: bool = False) -> dict[str, Any]:
    return cli_flags.document(file, dict(flags), (), allow_download=allow_download)


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'models = ["local:zoo"]\nseed = 3\n[data]\nsource = "here"\ntest = 0.3\n'
        '[finetune]\ntry = ["full"]\n[selection]\nscorers = ["logme"]\n'
    )
    document = made(("seed", 7), ("tuner", ["lp-ft:epochs=4,lr=1e-3"]), ("data", "there"), file=file)
    config = parse_config(document)
    assert config.seed == 7
    assert config.data.test == 0.3
    assert config.data.source.options["path"] == "there"
    (tuner,) = config.finetune.strategies
    assert (tuner.name, tuner.options) == ("lp-ft", {"epochs": 4, "lr": 0.001})


def test_set_reaches_any_option() -> None:
    settings = ["evaluation.replicates=200", "evaluation.scratch.options.epochs=2", "name=nightly run"]
    document = cli_flags.document(
        None, {"data": "here", "models": ["local:zoo"]}, settings, allow_download=False
    )
    config = parse_config(document)
    assert config.evaluation.replicates == 200
    assert config.evaluation.scratch == StrategyChoice(name="full", options={"epochs": 2})
    assert config.name == "nightly run"


def test_the_flags_of_a_search_make_its_section() -> None:
    document = made(
        ("data", "here"), ("models", ["local:zoo"]), ("budget", "10m"), ("trials", 8), ("search", ["lr", "smoothing"]),
        ("search_bounds", "lr=[1e-5, 1e-2],smoothing=[0, 0.2]"), ("soup", True), ("validate_by", "held-out"),
    )  # fmt: skip
    finetune = parse_config(document).finetune
    assert (finetune.budget, finetune.soup, finetune.validation) == (600, True, "held-out")
    assert (finetune.search.trials, finetune.search.fields) == (8, ("lr", "smoothing"))
    assert finetune.search.bounds == {"lr": (1e-5, 1e-2), "smoothing": (0, 0.2)}


def test_a_search_may_name_options_of_strategies_that_auto_may_choose(images: Path) -> None:
    document = {
        "data": {"source": str(images)}, "models": [f"local:{images}"],
        "finetune": {"try": ["auto"], "search": {"trials": 4, "fields": ["lr"], "bounds": {"lr": [1e-5, 1e-3]}}},
    }  # fmt: skip
    strategies.check(parse_config(document), Registry.discover())


def test_existing_paths_become_absolute(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images.parent)
    document = made(("data", "images"), ("models", ["local:images", "timm:resnet*"]))
    assert document["data"]["source"]["options"]["path"] == str(images.resolve())
    specs = [model["options"]["spec"] for model in document["models"]]
    assert specs == [str(images.resolve()), "resnet*"]


def test_a_run_is_named_after_its_data(images: Path) -> None:
    assert made(("data", str(images)), ("models", ["local:x"]))["name"] == "images"


def test_allow_download_reaches_every_hub_model_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('models = ["timm:resnet18", "local:zoo", {name = "timm", spec = "vit_*"}]\n')
    document = made(file=file, allow_download=True)
    config = parse_config({**document, "data": {"source": "x"}})
    allowed = [model.options.get("allow_download") for model in config.models]
    assert allowed == [True, None, True]


def test_adapt_none_tries_no_adapter() -> None:
    assert made(("adapt", ["none"]))["adapt"]["try"] == []


def test_a_strategy_option_may_be_a_list() -> None:
    document = made(("scorer", ["some:penalties=[1, 2],mode=a-b"]))
    (choice,) = document["selection"]["scorers"]
    assert choice == {"name": "some", "options": {"penalties": [1, 2], "mode": "a-b"}}


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(UserError, match="is no option"):
        made(("scorer", ["some:centred"]))

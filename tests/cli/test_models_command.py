"""`tlcore models`: a list for people and for programs, without an image, a weight or the network."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.test_model_timm import NAME, no_network, put_in_cache
from tests.stages.conftest import write_zoo
from tlcore_models import timm as plugin

__all__ = ["no_network"]

pytestmark = pytest.mark.usefixtures("no_network", "cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model; the plugin reads the place when it asks, the hub's library when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    put_in_cache(tmp_path / "hub")
    return tmp_path / "hub"


def listed(tlcore: Callable[..., Any], *arguments: str | Path) -> dict[str, Any]:
    done = tlcore("models", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_models_are_listed_with_their_cost_whether_or_not_their_weights_are_here(
    tlcore: Callable[..., Any], tmp_path: Path
) -> None:
    found = listed(tlcore, "timm:test_*", "timm:resnet18")
    rows = {row["name"]: row for row in found["models"]}
    assert rows["resnet18.a1_in1k"] | {"prior_rank": 0} == {
        "name": "resnet18.a1_in1k", "prior": None, "prior_rank": 0, "params": 11_176_512, "input_size": [224, 224],
        "gmacs": pytest.approx(1.81, abs=0.01), "onnx_bytes": pytest.approx(44.7e6, rel=0.01), "licence": "apache-2.0",
        "pretrained_on": "a1_in1k", "ready": False, "reason": rows["resnet18.a1_in1k"]["reason"],
    }  # fmt: skip
    assert "local hub cache" in rows["resnet18.a1_in1k"]["reason"]
    assert [name for name, row in rows.items() if row["ready"]] == [NAME]
    assert found["prior"] == "parameters" and found["left_out"] == []
    sizes = [row["params"] for row in found["models"]]
    assert sizes == sorted(sizes, reverse=True)
    assert all(row["prior_rank"] == 1 + sum(one > row["params"] for one in sizes) for row in rows.values())
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_limits_filter_and_say_how_many_each_leaves_out(tlcore: Callable[..., Any]) -> None:
    arguments = ("timm:resnet1*", "--max-gmacs", "2", "--licence", "apache-*")
    found = listed(tlcore, *arguments)
    assert found["models"] and all(row["gmacs"] <= 2 for row in found["models"])
    assert {row["licence"] for row in found["models"]} == {"apache-2.0"}
    reasons = {row["name"]: row["reason"] for row in found["left_out"]}
    assert "over the limit of 2" in reasons["resnet101.a1h_in1k"]
    out = tlcore("models", *arguments).out
    heavy = sum("GMACs" in reason for reason in reasons.values())
    assert f"--max-gmacs 2 leaves out {heavy}." in out
    assert f"{len(found['models'])} models, the weights of 0 here." in out


def test_published_accuracies_rank_those_that_have_one_and_the_others_come_last(
    tlcore: Callable[..., Any], tmp_path: Path
) -> None:
    table = tmp_path / "results-imagenet.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("model", "top1"), ("resnet18.a1_in1k", 71.5), ("resnet14t.c3_in1k", 72.2)]
        )
    found = listed(tlcore, "timm:resnet1[048]*", "--results", table)
    assert found["prior"] == "ImageNet top-1 from results-imagenet.csv"
    order = [(row["name"], row["prior_rank"]) for row in found["models"]]
    assert order[:2] == [("resnet14t.c3_in1k", 1), ("resnet18.a1_in1k", 2)]
    assert len(order) > 2 and {place for _, place in order[2:]} == {None}
    assert "72.2" in tlcore("models", "timm:resnet1[048]*", "--results", table).out


@pytest.mark.slow
def test_a_long_list_is_cut_for_people_and_whole_for_programs(tlcore: Callable[..., Any]) -> None:
    whole = listed(tlcore, "timm:resnet*")["models"]
    out = tlcore("models", "timm:resnet*", "--top", "3").out
    assert f"{len(whole) - 3} not shown: --top 0 or --json." in out
    table = out.partition("\n\n")[0]
    assert [row["name"] in table for row in whole] == [True] * 3 + [False] * (len(whole) - 3)
    out = tlcore("models", "timm:resnet*", "--top", "0").out
    assert all(row["name"] in out for row in whole) and "not shown" not in out


def test_models_whose_images_cannot_be_prepared_are_named_with_the_reason(
    tlcore: Callable[..., Any],
) -> None:
    found = listed(tlcore, "timm:volo_d5_51*")
    assert found["models"] == [] and "crop_pct 1.15" in found["left_out"][0]["reason"]
    out = tlcore("models", "timm:volo_d5_51*").out
    assert "0 models" in out and "volo_d5_512.sail_in1k" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet18"], ['"resnet18" names no model source', "timm:NAME"]),
        (["timm:resnet81"], ['did you mean "resnet18"', "tlcore models"]),
        (["timm:nothing_*"], ["no pretrained model of timm matches"]),
        (["hub:resnet18"], ['no model-source named "hub"', "local, open-clip, timm"]),
        (["local:nowhere/at/all"], ["no such file or folder", "tlcore models --help"]),
        (["--max-params", "0"], ["selection.max_params", "greater than 0", "tlcore models --help"]),
        (["--results", "nowhere.csv"], ["no such result table"]),
        (["--top", "-1"], ["--top", "--help"]),
    ],
)
def test_a_mistake_is_an_error_of_the_callers(
    tlcore: Callable[..., Any], arguments: list[str], words: list[str]
) -> None:
    done = tlcore("models", *arguments)
    assert done.code == 2 and done.out == "" and "Traceback" not in done.err
    assert all(word in done.err for word in words), done.err


@pytest.mark.slow
def test_a_narrow_terminal_loses_columns_and_no_name(
    tlcore: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (60, 80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = tlcore("models", "timm:resnet1[08]*").out.splitlines()
        assert max(map(len, lines)) <= width
        assert any(line.split()[1:2] == ["resnet18.a1_in1k"] for line in lines)
        dropped = " ".join(lines).partition("No room for ")[2].partition(".")[0]
        assert ("GMACs" not in lines[0]) == ("GMACs" in dropped)
    monkeypatch.setenv("COLUMNS", "160")
    assert "No room" not in tlcore("models", "timm:resnet1[08]*").out


def test_nothing_inside_a_limit_says_how_far_it_would_have_to_move(tlcore: Callable[..., Any]) -> None:
    done = tlcore("models", "timm:resnet1*", "--max-gmacs", "0.01")
    assert done.code == 0 and "0 models" in done.out
    least = min(row["gmacs"] for row in listed(tlcore, "timm:resnet1*")["models"])
    (said,) = (line for line in done.out.splitlines() if line.startswith("Next: --max-gmacs"))
    assert float(said.split()[2]) == pytest.approx(least, rel=0.1)


def test_what_is_not_ready_is_told_apart_from_what_cannot_be_built(
    tlcore: Callable[..., Any], tmp_path: Path
) -> None:
    zoo = write_zoo(tmp_path / "zoo", ("test_resnet", "test_efficientnet"))
    index = json.loads((zoo / "index.json").read_text())
    index["test_resnet"]["kwargs"] = {"nonsense": 1}
    (zoo / "index.json").write_text(json.dumps(index))
    out = tlcore("models", f"local:{zoo}", "timm:gcvit_tiny", "timm:resnet18").out
    assert "3 models, the weights of 1 here" in out
    left_out, not_here = (
        next(x for x in out.splitlines() if x.startswith(n)) for n in ("Left out", "Not here")
    )
    assert "test_resnet" in left_out and "nonsense" in left_out
    assert "resnet18.a1_in1k" in not_here and "gcvit_tiny.in1k" in out.partition("Not here")[2]
    assert "not on the hub" in out


def test_a_folder_with_the_name_of_a_model_is_not_taken_for_it(
    tlcore: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "resnet18").mkdir()
    assert listed(tlcore, "timm:resnet18")["models"][0]["name"] == "resnet18.a1_in1k"


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    script = (
        "set -o pipefail; "
        f"{sys.executable} -c 'from tlcore_flows.cli import main; main()' models 'timm:*' --top 0 | head -1"
    )
    environment = os.environ | {"TLCORE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rank") and len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr and "error" not in done.stderr


def test_a_glob_lists_more_than_a_run_would_take_on(tlcore: Callable[..., Any]) -> None:
    assert plugin.Timm(spec="resnet*").limit < len(listed(tlcore, "timm:resnet*")["models"])

"""The main job as a user runs it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from safetensors.numpy import load_file

from tests.stages.conftest import make_fault
from tlcore.export.predictor import Predictor
from tlcore.report.document import RUN_SCHEMA

from .conftest import Command

pytestmark = pytest.mark.slow

FAST = [
    "--tuner",
    "lp-ft:epochs=2,batch_size=8",
    "--scratch",
    "full:epochs=1",
    "--bootstrap",
    "100",
    "--replicates",
    "0",
]


def test_from_a_folder_to_predictions_and_all_from_the_cache_the_second_time(
    lone_command: Callable[..., Command], photos: Path, zoo: Path
) -> None:
    tlcore = lone_command()
    arguments = ["run", "--data", str(photos), "--models", f"local:{zoo}", *FAST]
    first = tlcore.json(*arguments)
    jsonschema.validate(first, RUN_SCHEMA)
    assert first["cached"] == [] and first["metrics"]["accuracy"] == 1.0 and first["adaptation"] is None
    assert set(first["baselines"]) == {"majority", "linear-probe", "scratch"} and first["parity"]["passed"]
    second = tlcore.json(*arguments)
    assert set(second["cached"]) == set(second["seconds"])
    same = ("ranking", "chosen", "metrics", "baselines", "parity")
    assert {key: second[key] for key in same} == {key: first[key] for key in same}

    for run in (first, second):
        assert Predictor(run["onnx"]).metadata.run_id == run["run_id"]
    shutil.copy(first["onnx"], photos.parent / "alone.onnx")
    image = next((photos / "bee").iterdir())
    (photos / "bee" / "broken.jpg").write_text("no image")
    done = tlcore(
        "predict", str(photos.parent / "alone.onnx"), str(image), str(photos / "bee" / "broken.jpg"), "--json"
    )
    assert done.returncode == 1  # one image could not be read
    good, bad = json.loads(done.stdout)["predictions"]
    assert (
        good["label"] == "bee" and good["error"] is None and bad["label"] is None and "image" in bad["error"]
    )

    listed = tlcore.json("runs")["runs"]
    assert [run["run_id"] for run in listed] == [second["run_id"], first["run_id"]]
    card = Path(first["card"]).read_text()
    assert "http://" not in card.replace("http://www.w3.org", "") and "<script src" not in card
    assert oct(tlcore.home.stat().st_mode & 0o777) == "0o700"
    for record in (tlcore.home / "prefect-results").iterdir():
        json.loads(record.read_text())  # JSON, never a pickle


ADAPTERS = ("--adapt", "coral:steps=6,checkpoints=2", "--adapt", "dann:steps=160,checkpoints=4,train=all")


def test_adaptation_is_judged_and_the_target_is_what_is_measured(
    command: Callable[..., Command], photos: Path, target: Path, zoo: Path
) -> None:
    done = command().json(
        "run", "--data", str(photos), "--target", str(target), "--models", f"local:{zoo}", *FAST, *ADAPTERS[:2], "--adapt",
        "coral-align",
    )  # fmt: skip
    adaptation = done["adaptation"]
    assert [entry["strategy"] for entry in adaptation["tried"]] == ["coral", "coral-align"]
    assert adaptation["kept"] in {"source-only", "coral", "coral-align"} and adaptation["reason"]
    first = adaptation["tried"][0]
    assert adaptation["source_only"]["accuracy"] is not None and first["accuracy_oracle"] is not None
    assert (
        set(first["validators"]) == {"im", "bnm"} and first["estimates"]["low"] <= first["estimates"]["high"]
    )
    assert adaptation["gap"]["label_sets"] == "closed" and adaptation["gap"]["a_distance"]


def test_adapters_that_are_not_sound_for_the_target_are_refused_by_name(
    command: Callable[..., Command], photos: Path, target: Path, zoo: Path
) -> None:
    shutil.rmtree(target / "cat")
    call = command()
    arguments = [
        "run", "--data", str(photos), "--target", str(target), "--models", f"local:{zoo}", *FAST, *ADAPTERS,
        "--target-class", "ant", "--target-class", "bee",
    ]  # fmt: skip
    done = call.json(*arguments, "--adapt", "mcc:steps=6,checkpoints=2")
    adaptation = done["adaptation"]
    tried = {entry["strategy"]: entry for entry in adaptation["tried"]}
    assert tried["mcc"]["refused"] is None and tried["mcc"]["accuracy"] is not None
    assert all("not sound here" in tried[name]["refused"] for name in ("coral", "dann"))
    assert adaptation["gap"]["label_sets"] == "partial" and adaptation["gap"]["missing_classes"] == ["cat"]
    assert any("coral was refused" in line for line in done["warnings"])
    # with none left the gap and the source-only model are shown all the same
    alone = call.json(*arguments)["adaptation"]
    assert alone["kept"] == "source-only" and alone["gap"] == adaptation["gap"]
    assert alone["source_only"] == adaptation["source_only"]
    assert [entry["strategy"] for entry in alone["tried"]] == ["coral", "dann"]


def wait_for(condition: Callable[[], bool], process: object, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.01)


def weights(home: Path) -> dict[str, bytes]:
    """Bytes of every trained network, by the address of its stage."""
    found = {}
    for path in (home / "stages" / "train").glob("*/weights.safetensors"):
        found[path.parent.name] = b"".join(value.tobytes() for _, value in sorted(load_file(path).items()))
    return found


def test_killed_at_any_stage_the_same_command_ends_with_the_same_result(
    command: Callable[..., Command], lone_command: Callable[..., Command], photos: Path, zoo: Path
) -> None:
    """kill -9 while candidates are scored, inside training, after it, and at the gate; then once more to the end."""
    arguments = [
        "run", "--data", str(photos), "--models", f"local:{zoo}", "--tuner", "full:epochs=6,batch_size=4", "--scratch",
        "full:epochs=1", "--bootstrap", "100", "--replicates", "0",
    ]  # fmt: skip
    unbroken = command("whole").json(*arguments)
    broken = lone_command("broken")
    moments: list[Callable[[], bool]] = [
        lambda: any((broken.home / "stages" / "features").glob("*/value.json")),
        lambda: any((broken.home / "work" / "train").glob("*/training.pt")),
        lambda: any((broken.home / "stages" / "train").glob("*/value.json")),
        lambda: any((broken.home / "stages" / "export").glob("*/value.json")),
    ]
    for moment in moments:
        process = broken.start(*arguments, "--json")
        wait_for(moment, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        (state,) = broken.json("runs")["runs"]
        assert state["state"] == "interrupted"
    ended = broken.json(*arguments)
    (state,) = broken.json("runs")["runs"]
    assert state["state"] == "completed" and state["run_id"] == ended["run_id"]
    same = ("ranking", "chosen", "metrics", "baselines", "parity")
    strip = {"images_per_second"}
    clean = [
        {**run, "ranking": [{k: v for k, v in row.items() if k not in strip} for row in run["ranking"]]}
        for run in (unbroken, ended)
    ]
    assert {key: clean[0][key] for key in same} == {key: clean[1][key] for key in same}
    assert weights(broken.home) == weights(unbroken_home := command("whole").home) and unbroken_home.is_dir()


def test_a_run_over_two_adapters_that_is_killed_goes_on_and_ends_with_the_same_table(
    command: Callable[..., Command], photos: Path, target: Path, zoo: Path
) -> None:
    """kill -9 after the first adapter, inside the second; the first is found, the second goes on."""
    arguments = [
        "run", "--data", str(photos), "--target", str(target), "--models", f"local:{zoo}/test_resnet.safetensors", *FAST,
        *ADAPTERS,
    ]  # fmt: skip
    unbroken = command("whole").json(*arguments)
    broken = command("broken")

    def between() -> bool:
        stages, work = broken.home / "stages" / "adapt", broken.home / "work" / "adapt"
        return any(stages.glob("*/value.json")) and any(work.glob("*/training.pt"))

    process = broken.start(*arguments, "--json")
    wait_for(between, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (first,) = (broken.home / "stages" / "adapt").glob("*/value.json")
    made = first.stat().st_mtime_ns
    ended = broken.json(*arguments)
    assert first.stat().st_mtime_ns == made
    (second,) = (path for path in (broken.home / "stages" / "adapt").glob("*/value.json") if path != first)
    assert json.loads(second.read_text())["checkpoint"]["resumed_from_step"] is not None

    def table(run: dict[str, Any]) -> Any:
        entries = [run["adaptation"]["source_only"], *run["adaptation"]["tried"]]
        return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries], run["adaptation"][
            "kept"
        ]

    assert table(ended) == table(unbroken)
    assert ended["metrics"] == unbroken["metrics"]


def test_a_strangers_scorer_is_used_by_its_name(
    command: Callable[..., Command], photos: Path, zoo: Path, example_plugin: Path
) -> None:
    tlcore = command(PYTHONPATH=str(example_plugin))
    assert "mean-margin" in tlcore("plugins").stdout
    ranking = tlcore.json(
        "rank",
        "--data",
        str(photos),
        "--models",
        f"local:{zoo}",
        "--scorer",
        "mean-margin",
        "--scorer",
        "logme",
    )["ranking"]
    assert all(set(row["scores"]) == {"mean-margin", "logme"} for row in ranking)
    unknown = command("other")(
        "rank", "--data", str(photos), "--models", f"local:{zoo}", "--scorer", "mean-margin"
    )
    assert unknown.returncode == 2 and 'no scorer named "mean-margin"' in unknown.stderr


def test_a_candidate_that_fails_is_reported_and_the_run_goes_on(
    inside: Callable[..., subprocess.CompletedProcess[str]], photos: Path, zoo: Path
) -> None:
    index = json.loads((zoo / "index.json").read_text())
    index["test_efficientnet"]["file"] = "test_resnet.safetensors"  # weights that do not fit
    (zoo / "index.json").write_text(json.dumps(index))
    done = inside("rank", "--data", str(photos), "--models", f"local:{zoo}", "--json")
    assert done.returncode == 0, done.stderr
    good, bad = json.loads(done.stdout)["ranking"]
    assert (good["candidate"], good["rank"], good["skipped"]) == ("test_resnet", 1, None)
    assert bad["rank"] is None and "fit" in bad["skipped"]


@pytest.mark.parametrize(
    "fault",
    ["bad files", "leaves the root"],
)
def test_a_fault_in_the_data_exits_with_2_and_is_named(
    inside: Callable[..., subprocess.CompletedProcess[str]], photos: Path, zoo: Path, fault: str
) -> None:
    named = make_fault(photos, fault)
    place = photos / "table.csv" if (photos / "table.csv").exists() else photos
    done = inside("rank", "--data", str(place), "--models", f"local:{zoo}")
    assert done.returncode == 2, done.stderr
    assert all(name in done.stderr for name in named), done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_bad_files_below_the_share_are_named_and_left_out(
    inside: Callable[..., subprocess.CompletedProcess[str]], photos: Path, zoo: Path
) -> None:
    make_fault(photos, "bad files")
    done = inside(
        "rank", "--data", str(photos), "--models", f"local:{zoo}", "--max-bad-share", "0.2", "--json"
    )
    assert done.returncode == 0 and json.loads(io.StringIO(done.stdout).read())["ranking"][0]["rank"] == 1

"""`tlcore predict`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tlcore.protocols import ExportJob
from tlcore.training.network import Network
from tlcore.values import Preprocess
from tlcore_exporters.onnx import Onnx


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    job = ExportJob(
        network=Network(backbone, 8, 3).eval(),
        preprocess=Preprocess(height=32, width=32),
        classes=("ant", "[b]bee[/b]", "fly"),
        metadata={"run_id": "r"},
        folder=folder,
    )
    return folder / Onnx().export(job).path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def test_a_folder_of_images_gets_labels_and_probabilities(
    model: Path, images: Path, tlcore: Callable[..., Any]
) -> None:
    document = json.loads(tlcore("predict", model, images, "--json", "--top", "3").out)
    assert document["model"] == str(model)
    assert [Path(row["image"]).name for row in document["predictions"]] == ["one.png", "two.png"]
    for row in document["predictions"]:
        assert row["label"] == row["top"][0]["label"]
        assert sum(one["probability"] for one in row["top"]) == pytest.approx(1, abs=1e-5)


def test_the_table_shows_names_as_they_are(model: Path, images: Path, tlcore: Callable[..., Any]) -> None:
    outcome = tlcore("predict", model, images / "one.png")
    assert outcome.code == 0
    assert "[b]bee[/b]" in outcome.out


def test_an_image_that_cannot_be_read_is_a_row_and_exit_code_1(
    model: Path, images: Path, tlcore: Callable[..., Any]
) -> None:
    (images / "bad.png").write_text("no image")
    outcome = tlcore("predict", model, images, "--json")
    assert outcome.code == 1
    rows = {Path(row["image"]).name: row for row in json.loads(outcome.out)["predictions"]}
    assert rows["bad.png"]["error"]
    assert rows["one.png"]["error"] is None


@pytest.mark.parametrize("wrong", ["model.onxx", "images/one.png"])
def test_a_file_that_is_no_model_is_refused(
    wrong: str, images: Path, tlcore: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = tlcore("predict", tmp_path / wrong, images)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err

"""Prediction from the file alone, and the gate against files that are wrong on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from tlcore.data.images import open_rgb, to_pixels
from tlcore.errors import GateError, UnknownName, UserError
from tlcore.export.gate import check_metadata, check_parity, enforce
from tlcore.export.predictor import Predictor, expand, prediction_document
from tlcore.protocols import ExportJob
from tlcore.training.network import Network
from tlcore.values import Preprocess
from tlcore_exporters.onnx import Onnx

CLASSES = ("ant", "bee", "<b>cat</b>", "ねこ")
RULE = Preprocess(height=48, width=48, resize="crop", crop_pct=0.8)


@dataclass(frozen=True)
class Case:
    network: Network
    model: Path
    images: list[str]
    probabilities: np.ndarray


def make_network() -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 12, 5, stride=3),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
    )
    network = Network(backbone, 96, len(CLASSES))
    nn.init.normal_(network.head.weight, std=3.0)
    return network.eval()


def export(
    network: nn.Module, folder: Path, rule: Preprocess = RULE, classes: tuple[str, ...] = CLASSES
) -> Path:
    job = ExportJob(
        network=network,  # type: ignore[arg-type]
        preprocess=rule,
        classes=classes,
        metadata={"run_id": "run-1"},
        folder=folder,
    )
    return folder / Onnx().export(job).path


def torch_answers(network: nn.Module, images: list[str]) -> np.ndarray:
    """Decode by the model's rule, then plain torch."""
    pixels = np.stack([to_pixels(open_rgb(path), RULE) for path in images])
    scaled = (pixels / 255.0 - np.array(RULE.mean)) / np.array(RULE.std)
    with torch.inference_mode():
        logits = network(torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32)))
    return torch.softmax(logits, 1).numpy()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    draw = np.random.default_rng(0)
    images = []
    for index in range(24):
        small = draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        path = folder / f"{index:02d}.png"
        Image.fromarray(small).resize((110, 70), Image.Resampling.BICUBIC).save(path)
        images.append(str(path))
    network = make_network()
    return Case(network, export(network, folder / "out"), images, torch_answers(network, images))


def judge(case: Case, file: Path) -> None:
    """The gate as a run applies it: the file prepares the images by its own metadata."""
    predictor = Predictor(file)
    answers = predictor.probabilities(case.images)
    labels = [0] * len(case.images)
    names = [Path(image).name for image in case.images]
    parity = check_parity(case.probabilities, answers, labels, names)
    enforce(parity, case.probabilities, answers, names, CLASSES, where="model.onnx")


def test_the_right_file_passes_the_gate(case: Case) -> None:
    judge(case, case.model)
    check_metadata(Predictor(case.model).metadata, RULE, CLASSES, where="model.onnx")
    assert len(set(case.probabilities.argmax(axis=1))) > 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["normalisation", "swapped channels", "resize rule", "permuted classes"])
def test_a_wrong_file_fails_the_gate_and_the_error_says_where(case: Case, fault: str, tmp_path: Path) -> None:
    network, rule = make_network(), RULE
    if fault == "normalisation":
        rule = RULE.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    elif fault == "resize rule":
        rule = RULE.model_copy(update={"resize": "squash"})
    elif fault == "swapped channels":
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.weight.data = first.weight.data.flip(1)
    else:
        order = [1, 2, 3, 0]
        network.head.weight.data = network.head.weight.data[order]
        network.head.bias.data = network.head.bias.data[order]
    wrong = export(network, tmp_path, rule)
    with pytest.raises(GateError) as caught:
        judge(case, wrong)
    text = str(caught.value)
    assert "model.onnx" in text
    assert ".png: model " in text
    assert "difference 0." in text
    assert "nothing was promoted" in text
    if rule != RULE:
        with pytest.raises(GateError, match="preprocess"):
            check_metadata(Predictor(wrong).metadata, RULE, CLASSES, where="model.onnx")


def test_predictions_equal_the_network_s_and_are_sorted(case: Case) -> None:
    predictions = Predictor(case.model, batch_size=5).predict(case.images)
    assert [row.uri for row in predictions] == case.images
    for row, expected in zip(predictions, case.probabilities, strict=True):
        assert row.error is None
        assert row.label == CLASSES[int(expected.argmax())]
        given = {scored.label: scored.probability for scored in row.probabilities}
        np.testing.assert_allclose([given[name] for name in CLASSES], expected, atol=1e-4)
        assert [scored.probability for scored in row.top(4)] == sorted(given.values(), reverse=True)


def test_a_corrupt_image_is_one_row_with_an_error(case: Case, tmp_path: Path) -> None:
    good = case.images[0]
    cut, text, empty, large = (tmp_path / name for name in ("cut.png", "text.jpg", "empty.png", "large.png"))
    cut.write_bytes(Path(good).read_bytes()[:300])
    text.write_text("no image")
    empty.touch()
    Image.new("RGB", (120, 100)).save(large)
    paths: list[str | Path] = [cut, good, text, empty, large, tmp_path / "missing.png", case.images[1]]
    predictions = Predictor(case.model, max_pixels=10_000, batch_size=3).predict(paths)
    assert [row.error is None for row in predictions] == [False, True, False, False, False, False, True]
    assert "no such file" in str(predictions[5].error)
    assert "too large" in str(predictions[4].error)
    assert predictions[0].label is None
    assert predictions[6].label == CLASSES[int(case.probabilities[1].argmax())]
    assert [row.error is None for row in Predictor(case.model).predict([text, empty])] == [False, False]
    with pytest.raises(UserError, match="not an image"):
        Predictor(case.model).probabilities([text])


def test_no_images_give_no_predictions(case: Case) -> None:
    assert Predictor(case.model).predict([]) == []
    assert Predictor(case.model).probabilities([]).shape == (0, len(CLASSES))


def test_the_document_is_plain_json_with_every_image(case: Case, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.touch()
    predictions = Predictor(case.model).predict([case.images[0], bad])
    document = json.loads(
        json.dumps(prediction_document(predictions, model="m.onnx", top=2), allow_nan=False)
    )
    assert document["model"] == "m.onnx"
    first, second = document["predictions"]
    assert set(first) == {"image", "label", "probability", "top", "error"}
    assert first["top"][0] == {"label": first["label"], "probability": first["probability"]}
    assert len(first["top"]) == 2
    assert second["label"] is None
    assert second["top"] == []
    assert second["error"]


def rewrite(source: Path, target: Path, change: str) -> Path:
    model = onnx.load(source)
    if change == "no metadata":
        del model.metadata_props[:]
    elif change == "classes":
        for entry in model.metadata_props:
            if entry.key == "tlcore.classes":
                entry.value = json.dumps(CLASSES[:3])
    else:
        model.graph.input[0].name = "x"
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == "image":
                    node.input[index] = "x"
    onnx.save(model, target)
    return target


def test_a_file_that_is_not_ours_is_refused_with_the_reason(case: Case, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "cut.onnx").write_bytes(case.model.read_bytes()[:5000])
    for name in ("text.onnx", "empty.onnx", "cut.onnx"):
        with pytest.raises(UserError, match="not an ONNX file that") as caught:
            Predictor(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(UserError, match="no tlcore metadata"):
        Predictor(rewrite(case.model, tmp_path / "bare.onnx", "no metadata"))
    with pytest.raises(UserError, match="the graph has x: "):
        Predictor(rewrite(case.model, tmp_path / "renamed.onnx", "input"))
    with pytest.raises(UserError, match=r"\[4\] and the metadata says .*\[3\]"):
        Predictor(rewrite(case.model, tmp_path / "classes.onnx", "classes"))


def test_a_missing_file_offers_the_nearest(case: Case) -> None:
    with pytest.raises(UnknownName, match='did you mean "model.onnx"') as caught:
        Predictor(case.model.with_name("modle.onnx"))
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownName, match="no ONNX file named"):
        Predictor(case.model.parent / "no-folder" / "model.onnx")
    with pytest.raises(UserError, match="is a folder"):
        Predictor(case.model.parent)


def test_folders_globs_and_files_are_expanded_once_each(tmp_path: Path) -> None:
    for name in ("a/2.png", "a/1.JPG", "a/deep/3.webp", "a/.hidden/4.png", "a/notes.txt", "b[1].png", "odd"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    root = str(tmp_path)
    assert expand([f"{root}/a"]) == [f"{root}/a/1.JPG", f"{root}/a/2.png", f"{root}/a/deep/3.webp"]
    assert expand([f"{root}/a/*"]) == [f"{root}/a/1.JPG", f"{root}/a/2.png"]
    assert expand([f"{root}/a/2.png", f"{root}/a/*.png", f"{root}/a/**/*.webp"]) == [
        f"{root}/a/2.png",
        f"{root}/a/deep/3.webp",
    ]
    assert expand([f"{root}/b[1].png", f"{root}/odd"]) == [f"{root}/b[1].png", f"{root}/odd"]


def test_inputs_that_name_no_image_are_refused(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownName, match='did you mean "image.png"'):
        expand([tmp_path / "imgae.png"])
    with pytest.raises(UserError, match="holds no image"):
        expand([tmp_path / "empty"])
    with pytest.raises(UserError, match="no image matches"):
        expand([str(tmp_path / "*.jpg")])


def test_the_predictor_needs_neither_torch_nor_the_rest_of_the_training_stack(case: Case) -> None:
    program = (
        "import sys\n"
        "from tlcore.export.predictor import Predictor\n"
        "heavy = {'torch', 'timm', 'torchvision', 'polars', 'pandera', 'prefect', 'onnx', 'scipy', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert Predictor(sys.argv[1]).predict([sys.argv[2]])[0].error is None\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(case.model), case.images[0]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""

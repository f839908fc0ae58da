"""Labels that are numbers or tags through every stage, on generated images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.stages.conftest import Chain, source, write_zoo
from tlcore.errors import UserError
from tlcore.export.predictor import Predictor, prediction_document
from tlcore.stages.base import StageJob, run_stage
from tlcore.stages.values import CheckedData, Evaluation, FeatureFiles, Trained
from tlcore.values import Candidate, Exported, NumberMetrics, Parity, Ranked, Ref, TagMetrics

TAGS = ("blue", "green", "red")


def write_numbers(folder: Path, count: int = 48) -> Path:
    """The brightness of an image, 0 … 90, is its number."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["uri,age"]
    for number, level in enumerate(rng.uniform(0, 1, count)):
        pixels = (rng.random((40, 36, 3)) * 60 + level * 180).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{90 * level:.3f}")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


def write_tags(folder: Path, count: int = 48) -> Path:
    """Each colour channel that is lit is a tag."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["uri,label"]
    for number, lit in enumerate(rng.random((count, 3)) < (0.3, 0.4, 0.5)):
        channels = lit[::-1] * 200 + rng.random((40, 36, 3)) * 40
        Image.fromarray(channels.astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(np.array(TAGS)[lit]) or '|'}")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


def checked(chain: Chain, path: Path, **options: Any) -> Ref:
    strategies = {"source": ("data-source", "manifest", {"path": str(path), **options})}
    limits = {"max_pixels": 10_000_000, "max_bad_share": 0.01, "validation": 0.2, "test": 0.25}
    loaded = chain("load", strategies=strategies)
    return chain(
        "check",
        inputs={"data": loaded},
        options=limits,
        strategies={"check": ("data-check", "image-table", {})},
    )


def prepared(chain: Chain, tmp_path: Path, task: str, count: int = 48) -> tuple[Ref, Candidate, Ref]:
    data = (
        checked(chain, write_numbers(tmp_path / "photos", count), label="age")
        if task == "regression"
        else checked(chain, write_tags(tmp_path / "photos", count), separator="|")
    )
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    return data, candidate, chain.pixels(data, candidate)


def features(chain: Chain, data: Ref, candidate: Candidate, pixels: Ref, **options: Any) -> Ref:
    return chain(
        "features", inputs={"data": data, "pixels": pixels}, strategies={"source": source(candidate)},
        options={"candidate": candidate.recipe(), "max_images": 5000, **options},
    )  # fmt: skip


def scored(chain: Chain, data: Ref, candidate: Candidate, made: Ref, *scorers: str) -> Ranked:
    ref = chain(
        "score", inputs={"data": data, "features": made}, strategies={name: ("scorer", name, {}) for name in scorers},
        options={"candidate": candidate.model_dump(mode="json"), "replicates": 8},
    )  # fmt: skip
    return chain.store.read(ref, Ranked)


@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_the_default_panel_ranks_by_what_it_can_and_says_so_once(
    chain: Chain, tmp_path: Path, task: str
) -> None:
    data, candidate, pixels = prepared(chain, tmp_path, task)
    found = chain.store.read(data, CheckedData)
    assert (found.task, found.report.task) == (task, task)
    assert found.report.source_images("train") + found.report.source_images("val") == pytest.approx(36, abs=3)
    made = features(chain, data, candidate, pixels)
    ranked = scored(chain, data, candidate, made, "logme", "knn", "logistic-probe", "parc", "ridge-cv")
    assert set(ranked.scores) == set(ranked.spread) == {"logme", "ridge-cv"}
    (note,) = [line for line in ranked.notes if "left out" in line]
    assert note.startswith("knn, logistic-probe, parc are scores of classes")
    only = scored(chain, data, candidate, made, "knn")
    assert only.skipped is not None and "--scorer" in only.skipped


@pytest.mark.slow
def test_shards_of_numbers_score_as_the_whole(chain: Chain, tmp_path: Path) -> None:
    data, candidate, pixels = prepared(chain, tmp_path, "regression", 140)
    whole = scored(chain, data, candidate, features(chain, data, candidate, pixels), "logme", "ridge-cv")
    parts = tuple(features(chain, data, candidate, pixels, shard=[index, 2]) for index in range(2))
    merged = run_stage(chain.store, chain.registry, StageJob(stage="merge", inputs={"parts": parts})).ref
    assert chain.store.read(merged, FeatureFiles).images == chain.store.read(
        data, CheckedData
    ).report.source_images("train")
    assert scored(chain, data, candidate, merged, "logme", "ridge-cv").scores == pytest.approx(
        whole.scores, rel=1e-4
    )


def test_a_tuner_of_classes_is_refused_with_those_that_are_not(chain: Chain, tmp_path: Path) -> None:
    data, candidate, pixels = prepared(chain, tmp_path, "regression")
    with pytest.raises(
        UserError, match='"linear-probe" is for classes, and these labels are numbers'
    ) as caught:
        chain.train(data, pixels, candidate, "linear-probe")
    assert "ridge" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "multi-label"])
def test_the_exported_file_answers_numbers_and_tags_right(chain: Chain, tmp_path: Path, task: str) -> None:
    data, candidate, pixels = prepared(chain, tmp_path, task)
    probe = chain.train(data, pixels, candidate, "ridge")
    model = chain.train(data, pixels, candidate, "lp-ft", {"epochs": 2})
    trained = chain.store.read(model, Trained)
    assert trained.checkpoint.task == task and trained.validation > 0.9
    inputs = {"data": data, "model": model, "baseline:ridge": probe}
    found = chain.store.read(chain("evaluate", inputs=inputs, options={"replicates": 200}), Evaluation)
    assert isinstance(found.metrics, NumberMetrics if task == "regression" else TagMetrics)
    assert found.metrics.score > 0.9
    simple = found.baselines[0]
    assert simple.baseline in {"mean", "tag-frequencies"} and simple.better

    both = {"source": source(candidate), "exporter": ("exporter", "onnx", {})}
    written = chain("export", inputs={"data": data, "model": model}, strategies=both)
    gate = {"data": data, "pixels": pixels, "model": model, "file": written}
    options = {"tolerance": 1e-3, "max_pixels": 10_000_000}
    proof = chain.store.read(chain("parity", inputs=gate, options=options, strategies=both), Parity)
    assert proof.passed and proof.task == task and proof.accuracy_model is None

    predictor = Predictor(chain.store.folder(written) / chain.store.read(written, Exported).path)
    assert predictor.metadata.task == task
    lines = (tmp_path / "photos" / "list.csv").read_text().splitlines()[1:]
    truth = dict(line.split(",") for line in lines)
    answers = predictor.predict([tmp_path / "photos" / name for name in truth])
    document = prediction_document(answers, model="m", metadata=predictor.metadata)["predictions"]
    if task == "regression":
        errors = [
            abs((a.value or 0) - float(label)) for a, label in zip(answers, truth.values(), strict=True)
        ]
        assert np.mean(errors) < 5  # of 0 … 90
        assert document[0] == {"image": answers[0].uri, "age": answers[0].value, "error": None}
    else:
        right = [
            set(a.tags or ()) == set(label.split("|")) - {""}
            for a, label in zip(answers, truth.values(), strict=True)
        ]
        assert np.mean(right) > 0.9
        assert document[0]["tags"] == list(answers[0].tags or ()) and len(document[0]["top"]) == 3

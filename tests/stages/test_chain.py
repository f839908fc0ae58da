"""The chain on real, tiny parts: what each stage leaves, what is cached, what training may see."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tlcore.errors import GateError, PluginError, UserError
from tlcore.stages.base import StageJob, job_key, run_stage
from tlcore.stages.values import AdaptedModel, CandidateList, CheckedData, Evaluation, FeatureFiles, Trained
from tlcore.values import Exported, Parity, Ranked, Ranking, Ref

from .conftest import CLASSES, FAULTS, Chain, make_fault, source, write_images, write_zoo


def weights(chain: Chain, ref: Ref) -> dict[str, torch.Tensor]:
    return load_file(chain.store.folder(ref) / "weights.safetensors")


@pytest.mark.slow
def test_the_chain_from_a_folder_to_a_proven_file(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_images(tmp_path / "photos", 12, seed=0))
    checked = chain.store.read(data, CheckedData)
    assert checked.classes == ("ant", "bee", "cat") and checked.report.rows == 36 and not checked.has_target
    first, second = chain.candidates(write_zoo(tmp_path / "zoo"))
    pixels = chain.pixels(data, first)
    scores = []
    for candidate in (first, second):
        document = candidate.model_dump(mode="json")
        features = chain(
            "features", candidate.name, inputs={"data": data, "pixels": pixels},
            options={"candidate": document, "max_images": 100}, strategies={"source": source(candidate)},
        )  # fmt: skip
        assert chain.store.read(features, FeatureFiles).complete
        score = chain(
            "score", candidate.name, inputs={"data": data, "features": features},
            options={"candidate": document, "replicates": 8}, strategies={"s": ("scorer", "logme", {})},
        )  # fmt: skip
        assert np.isfinite(chain.store.read(score, Ranked).scores["logme"])
        scores.append(score)
    job = StageJob(
        stage="rank",
        inputs={"scores": tuple(scores)},
        options={
            "scorers": ["logme"],
            "images": 24,
            "left_out": [],
            "shortlist": 1,
            "prior_source": "",
        },
    )
    ranking = chain.store.read(run_stage(chain.store, chain.registry, job).ref, Ranking)
    assert sorted(entry.rank or 0 for entry in ranking.entries) == [1, 2]
    assert ranking.shortlist == (ranking.best,) and ranking.prior == "parameters"
    assert len(ranking.entries[0].draws["logme"]) == 8
    model = chain.train(data, pixels, first, "linear-probe")
    trained = chain.store.read(model, Trained)
    assert trained.validation == 1.0 and trained.checkpoint.strategy == "linear-probe"
    evaluation = chain.store.read(
        chain(
            "evaluate",
            inputs={"data": data, "model": model, "baseline:probe": model},
            options={"replicates": 100},
        ),
        Evaluation,
    )
    assert evaluation.metrics.accuracy == 1.0 and [b.baseline for b in evaluation.baselines] == [
        "majority",
        "probe",
    ]
    both = {"source": source(first), "exporter": ("exporter", "onnx", {})}
    written = chain("export", inputs={"data": data, "model": model}, strategies=both)
    path = chain.store.folder(written) / chain.store.read(written, Exported).path
    assert {"source_model", "licence", "tlcore.run_id"} <= {
        item.key for item in onnx.load(path).metadata_props
    }
    gate = {"data": data, "pixels": pixels, "model": model, "file": written}
    options = {"tolerance": 1e-3, "max_pixels": 10_000_000}
    parity = chain.store.read(chain("parity", inputs=gate, options=options, strategies=both), Parity)
    assert parity.passed and parity.images == 36 and parity.top1_agreement == 1.0
    with pytest.raises(GateError):
        chain(
            "parity",
            inputs={**gate, "model": chain.train(data, pixels, first, "full", {"epochs": 1})},
            options=options,
            strategies=both,
        )


@pytest.mark.slow
def test_a_second_run_finds_every_stage(chain: Chain, tmp_path: Path) -> None:
    photos, zoo = write_images(tmp_path / "photos", 6, seed=0), write_zoo(tmp_path / "zoo", ("test_resnet",))
    for expected in (False, True):
        data = chain.data(photos)
        (candidate,) = chain.candidates(zoo)
        chain.train(data, chain.pixels(data, candidate), candidate, "linear-probe")
        assert {label: result.cached for label, result in chain.done.items()} == dict.fromkeys(
            chain.done, expected
        )


def test_a_changed_image_is_a_new_address_and_a_touched_one_is_not(chain: Chain, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 6, seed=0)
    before = chain.data(photos)
    image = next(photos.rglob("*.png"))
    image.touch()
    assert chain.data(photos) == before
    Image.fromarray(np.full((40, 36, 3), 7, np.uint8)).save(image)
    assert chain.data(photos) != before


def test_another_input_size_leaves_the_pixels_of_the_others(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_images(tmp_path / "photos", 4, seed=0))
    first, second = chain.candidates(write_zoo(tmp_path / "zoo"))
    assert second.preprocess is not None
    larger = second.model_copy(update={"preprocess": second.preprocess.model_copy(update={"width": 40})})
    before = chain.pixels(data, first)
    stamp = (chain.store.folder(before) / "value.json").stat().st_mtime_ns
    both = chain.decoded(data, first, larger)
    assert both[0] == before != both[1]
    assert (chain.store.folder(before) / "value.json").stat().st_mtime_ns == stamp


def test_three_models_of_one_name_are_kept_apart(chain: Chain, tmp_path: Path) -> None:
    files = []
    for number in range(3):
        zoo = write_zoo(tmp_path / f"zoo{number}", ("test_resnet",), first_seed=number)
        files.append(str(zoo / "test_resnet.safetensors"))
    sources = {f"model-{n}": ("model-source", "local", {"spec": file}) for n, file in enumerate(files)}
    found = chain.store.read(chain("candidates", strategies=sources), CandidateList).entries
    assert [entry.name for entry in found] == ["test_resnet", "test_resnet#2", "test_resnet#3"]


def test_a_network_that_cannot_take_the_input_is_named_as_such(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_images(tmp_path / "photos", 4, seed=0))
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_convnext",)))
    assert candidate.preprocess is not None
    small = candidate.model_copy(
        update={"preprocess": candidate.preprocess.model_copy(update={"height": 8, "width": 8})}
    )
    with pytest.raises(PluginError, match="failed on its input"):
        chain(
            "features", inputs={"data": data, "pixels": chain.pixels(data, small)},
            options={"candidate": small.model_dump(mode="json"), "max_images": 100}, strategies={"source": source(small)},
        )  # fmt: skip


def test_two_strategies_of_the_same_options_never_share_an_address(chain: Chain) -> None:
    def job(name: str) -> StageJob:
        return StageJob.model_validate(
            {
                "stage": "adapt",
                "strategies": {"adapter": {"kind": "adapter", "name": name, "options": {"steps": 3}}},
            }
        )

    assert job_key(job("coral"), chain.registry) != job_key(job("dann"), chain.registry)


def test_an_omitted_option_and_its_default_share_an_address(chain: Chain) -> None:
    def key(options: dict[str, int]) -> str:
        job = StageJob.model_validate(
            {"stage": "adapt", "strategies": {"a": {"kind": "adapter", "name": "coral", "options": options}}}
        )
        return job_key(job, chain.registry)

    assert key({}) == key({"checkpoints": 10}) != key({"checkpoints": 7})


def test_threads_and_provenance_are_no_part_of_the_address(chain: Chain) -> None:
    plain, other = (
        StageJob(stage="evaluate"),
        StageJob(stage="evaluate", threads=3, provenance={"run_id": "x"}, subject="y"),
    )
    assert job_key(plain, chain.registry) == job_key(other, chain.registry)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_images(tmp_path / "photos", 6, seed=0))
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    pixels = chain.pixels(data, candidate)
    first = weights(chain, chain.train(data, pixels, candidate, "full", {"epochs": 1}))
    shutil.rmtree(chain.store.root / "stages" / "train")
    again = weights(chain, chain.train(data, pixels, candidate, "full", {"epochs": 1}))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["coral", "dann"])
def test_target_labels_change_nothing_but_the_final_test(chain: Chain, tmp_path: Path, adapter: str) -> None:
    """The same target images under true and under scrambled labels: equal weights, equal choices."""
    photos = write_images(tmp_path / "photos", 8, seed=0)
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    target = tmp_path / "target"
    for split in ("train", "val", "test"):
        write_images(target / split, 3, seed=len(split), offset=25)
    images = sorted(target.rglob("*.png"))
    found = []
    for number, turn in enumerate((0, 1)):
        names = [CLASSES[(CLASSES.index(path.parent.name) + turn) % 3] for path in images]
        lines = [
            f"{path.relative_to(target)},{name},{path.parent.parent.name}"
            for path, name in zip(images, names, strict=True)
        ]
        manifest = target / f"{number}.csv"
        manifest.write_text("\n".join(["uri,label,split", *lines]))
        data = chain.data(photos, manifest)
        pixels = chain.pixels(data, candidate)
        model = chain.train(data, pixels, candidate, "linear-probe")
        result = chain.adapt(data, pixels, model, adapter)
        found.append((chain.store.read(result, AdaptedModel), weights(chain, result)))
    (true, kept), (wrong, other) = found
    assert all(torch.equal(value, other[name]) for name, value in kept.items())
    assert true.checkpoint.chosen_epoch == wrong.checkpoint.chosen_epoch
    assert true.adapted.validator_score == wrong.adapted.validator_score
    assert true.source_only.accuracy == 1.0 and wrong.source_only.accuracy == 0.0
    assert true.adapted.accuracy_oracle is not None and true.adapted.accuracy_last is not None


@pytest.mark.slow
def test_a_target_without_labels_gives_no_target_accuracy_and_says_so(chain: Chain, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 8, seed=0)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, image in enumerate(sorted(write_images(tmp_path / "t", 6, seed=3, offset=20).rglob("*.png"))):
        shutil.copy(image, flat / f"{number:03}.png")
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    data = chain.data(photos, flat)
    pixels = chain.pixels(data, candidate)
    model = chain.train(data, pixels, candidate, "linear-probe")
    result = chain.store.read(chain.adapt(data, pixels, model, "coral"), AdaptedModel)
    assert (
        result.adapted.accuracy is None
        and result.adapted.accuracy_oracle is None
        and result.source_only.accuracy is None
    )
    evaluation = chain.store.read(
        chain("evaluate", inputs={"data": data, "model": model}, options={"replicates": 100}), Evaluation
    )
    assert evaluation.domain == "source" and "no labelled test images" in evaluation.warnings[0]


def test_target_classes_that_the_source_lacks_are_named(chain: Chain, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 4, seed=0)
    target = write_images(tmp_path / "target", 4, seed=1, classes=("ant", "zebra"))
    with pytest.raises(UserError, match="zebra") as caught:
        chain.data(photos, target)
    assert caught.value.choices == ("ant", "bee", "cat")


def test_no_usable_candidate_is_an_error_with_the_reasons(chain: Chain, tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", ("test_resnet",))
    index = (
        (zoo / "index.json")
        .read_text()
        .replace('"architecture": "test_resnet"', '"architecture": "nobody_knows"')
    )
    (zoo / "index.json").write_text(index)
    with pytest.raises(UserError, match="nobody_knows"):
        chain.candidates(zoo)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_data_is_the_callers_to_mend_and_is_named(
    chain: Chain, tmp_path: Path, fault: str
) -> None:
    photos = write_images(tmp_path / "photos", 6, seed=0)
    named = make_fault(photos, fault)
    table = photos / "table.csv"
    with pytest.raises(UserError) as caught:
        chain.data(table if table.exists() else photos)
    assert all(name in str(caught.value) for name in named) and caught.value.exit_code == 2

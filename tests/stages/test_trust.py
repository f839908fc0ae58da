"""What evaluation says beyond accuracy: calibration of the file, label errors, domains; and that parity agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from tlcore.errors import GateError
from tlcore.export.session import FileSession
from tlcore.stages.networks import load_out_of_fold, load_predictions
from tlcore.stages.tables import load_table, rows_of
from tlcore.stages.values import CheckedData, Evaluation, Trained
from tlcore.store import Work
from tlcore.values import Calibration, Candidate, Exported, Parity, Ref

from .conftest import Chain, source, write_images, write_zoo

TEMPERATURE = 2.5
CALIBRATION = Calibration(
    temperature=TEMPERATURE, images=60, nll_before=0.9, nll_after=0.4, error_before=0.2, error_after=0.05, kept=True, why="x"
)  # fmt: skip


class Bench:
    """A linear probe, and the same network as a calibrated training leaves it."""

    def __init__(self, chain: Chain, tmp_path: Path) -> None:
        self.chain = chain
        self.data = chain.data(write_images(tmp_path / "photos", 12, seed=0))
        (self.candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
        self.pixels = chain.pixels(self.data, self.candidate)
        self.plain = chain.train(self.data, self.pixels, self.candidate, "linear-probe")
        self.table = load_table(chain.store.folder(self.data), chain.store.read(self.data, CheckedData))

    def changed(self, key: str, *, temperature: float = 1.0, out_of_fold: bool = False) -> Ref:
        folder, trained = self.chain.store.folder(self.plain), self.chain.store.read(self.plain, Trained)

        def write(work: Work) -> None:
            for name in (trained.checkpoint.weights, "predictions.npz"):
                (work.folder / name).write_bytes((folder / name).read_bytes())
            if out_of_fold:
                rows = rows_of(self.table, "train", labelled=True)
                labels = np.asarray(self.table.labels())[rows]
                sure = np.full((len(rows), 3), 0.02) + 0.94 * np.eye(3)[labels]
                sure[0] = np.roll(sure[0], 1)  # one image looks like another class
                np.savez(work.folder / "out_of_fold.npz", rows=rows, probabilities=sure.astype(np.float32))
            checkpoint = trained.checkpoint.model_copy(update={"temperature": temperature})
            calibration = CALIBRATION if temperature != 1 else None
            work.write(trained.model_copy(update={"checkpoint": checkpoint, "calibration": calibration}))

        return self.chain.store.compute("train", key, write)[0]

    def evaluate(self, model: Ref, calibrate: bool = True, **baselines: Ref) -> Evaluation:
        inputs = {
            "data": self.data,
            "model": model,
            **{name.replace("__", ":"): ref for name, ref in baselines.items()},
        }
        options = {"replicates": 100, "calibrate": calibrate}
        return self.chain.store.read(self.chain("evaluate", inputs=inputs, options=options), Evaluation)


def both(candidate: Candidate) -> dict[str, tuple[str, str, dict[str, object]]]:
    return {"source": source(candidate), "exporter": ("exporter", "onnx", {})}


@pytest.fixture
def bench(chain: Chain, tmp_path: Path) -> Bench:
    return Bench(chain, tmp_path)


@pytest.mark.slow
def test_the_card_measures_the_calibrated_file_and_parity_holds_them_against_each_other(bench: Bench) -> None:
    chain, model = bench.chain, bench.changed("hot", temperature=TEMPERATURE)
    raw, cooled = bench.evaluate(model, calibrate=False), bench.evaluate(model)
    assert raw.uncalibrated is None and cooled.uncalibrated == raw.metrics.reliability
    assert cooled.metrics.accuracy == raw.metrics.accuracy and cooled.calibration == CALIBRATION
    rows = rows_of(bench.table, "test", labelled=True)
    p = load_predictions(chain.store.folder(model), rows).astype(np.float64)
    expected = softmax(np.log(p) / TEMPERATURE, axis=1)
    assert cooled.metrics.reliability is not None
    likely = expected[np.arange(len(rows)), np.asarray(bench.table.labels())[rows]]
    assert cooled.metrics.reliability.log_loss == pytest.approx(-np.log(likely).mean(), rel=1e-4)

    def proven(calibrated_file: bool, calibrated_model: bool) -> Parity:
        written = chain(
            "export", inputs={"data": bench.data, "model": model}, options={"calibrate": calibrated_file},
            strategies=both(bench.candidate),
        )  # fmt: skip
        path = chain.store.folder(written) / chain.store.read(written, Exported).path
        assert FileSession(path).metadata.temperature == (TEMPERATURE if calibrated_file else 1)
        found = chain(
            "parity", inputs={"data": bench.data, "pixels": bench.pixels, "model": model, "file": written},
            options={"tolerance": 1e-3, "max_pixels": 10_000_000, "calibrate": calibrated_model},
            strategies=both(bench.candidate),
        )  # fmt: skip
        return chain.store.read(found, Parity)

    assert proven(True, True).passed and proven(False, False).passed
    with pytest.raises(GateError, match="temperature is 1 in the model and 2.5 in the file"):
        proven(True, False)


def test_label_errors_come_from_the_model_and_else_from_the_linear_probe(bench: Bench) -> None:
    judging = bench.changed("folds", out_of_fold=True)
    own = bench.evaluate(judging).label_errors
    assert own is not None and own.found_by == "the model" and own.found == 1
    train = rows_of(bench.table, "train", labelled=True)
    suspect = own.suspects[0]
    assert suspect.sample_id == bench.table.table["sample_id"][int(train[0])]
    assert suspect.label != suspect.suggested and suspect.suggested_probability == pytest.approx(0.96)
    bare = bench.changed("bare")
    borrowed = bench.evaluate(bare, **{"baseline:linear-probe": judging}).label_errors
    assert borrowed is not None and "linear probe" in borrowed.found_by and borrowed.suspects == own.suspects
    assert bench.evaluate(bare, **{"baseline:scratch": judging}).label_errors is None


def test_without_out_of_fold_predictions_nothing_is_loaded(tmp_path: Path) -> None:
    assert load_out_of_fold(tmp_path) is None


@pytest.mark.slow
def test_several_domains_have_a_row_each_and_one_has_none(chain: Chain, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 12, seed=0)
    target = write_images(tmp_path / "target", 3, seed=5, offset=25)
    lines = ["uri,label,split"]
    lines += [
        f"{p.relative_to(target)},{p.parent.name},{('train', 'val', 'test')[i % 3]}"
        for i, p in enumerate(sorted(target.rglob("*.png")))
    ]
    (target / "table.csv").write_text("\n".join(lines))
    data = chain.data(photos, target / "table.csv")
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    model = chain.train(data, chain.pixels(data, candidate), candidate, "linear-probe")
    found = chain.store.read(
        chain("evaluate", inputs={"data": data, "model": model}, options={"replicates": 100}), Evaluation
    )
    by_name = {row.domain: row for row in found.domains}
    assert list(by_name) == ["source", "target"] and by_name["target"].images == found.metrics.images == 3
    assert by_name["target"].accuracy == found.metrics.accuracy


def test_an_evaluation_knows_what_made_the_result_and_scratch_is_not_held_against_itself(
    bench: Bench,
) -> None:
    assert bench.evaluate(bench.plain).strategy == "linear-probe"
    scratch = bench.chain.train(bench.data, bench.pixels, bench.candidate, "scratch", {"epochs": 1})
    own = bench.evaluate(scratch, baseline__scratch=scratch)
    assert own.strategy == "scratch" and not any("transfer" in text for text in own.warnings)
    other = bench.evaluate(bench.plain, baseline__scratch=bench.plain)
    assert any("No benefit of transfer" in text for text in other.warnings)


def test_a_real_training_of_few_images_brings_its_own_calibration_and_judges_its_labels(bench: Bench) -> None:
    found = bench.evaluate(bench.plain)
    assert found.calibration is not None and "few" in found.calibration.why and not found.calibration.kept
    assert found.uncalibrated is None and found.label_errors is not None
    assert found.label_errors.images == len(rows_of(bench.table, "train", labelled=True))

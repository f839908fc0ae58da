"""A run record as a real run leaves it: digits, five source models, five adapters, twelve top losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.report.adapted import adaptation
from tlcore.evaluation.calibration import at_temperature, fit_temperature, logits_of, reliability
from tlcore.evaluation.comparison import compare
from tlcore.evaluation.label_errors import label_errors
from tlcore.evaluation.metrics import measure
from tlcore.evaluation.rows import per_domain
from tlcore.report.card import render
from tlcore.values import (
    Chosen,
    Comparison,
    DataReport,
    Epoch,
    Exported,
    Halving,
    Interval,
    Metrics,
    Parity,
    Problem,
    Ranked,
    Ranking,
    Rung,
    RunRecord,
    Trial,
)

Make = Callable[..., RunRecord]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda **changes: sample(tmp_path, **changes)


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The whole record, made once; its files are not to be touched."""
    return sample(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="session")
def card(record: RunRecord) -> str:
    """Its run card."""
    return render(record)


def sample(
    folder: Path,
    classes: tuple[str, ...] | None = None,
    images: int = 500,
    skill: float = 3.6,
    **changes: Any,
) -> RunRecord:
    """A record over `classes`; `changes` replace fields of it."""
    names = classes or tuple("0123456789")
    metrics, correct, p, y = measured(folder, names, images, skill)
    rng = np.random.default_rng(1)

    def baseline(name: str, accuracy: float) -> Comparison:
        """Mostly wrong where the result is wrong too, as real ones are."""
        return compare(correct, rng.random(images) < np.where(correct, accuracy, 0.3 * accuracy), name)

    splits = {"train": 100, "val": 797, "test": images}
    fields: dict[str, Any] = {
        "run_id": "20261121-094512-7f3a",
        "name": "digits: handwritten scans",
        "created": "2026-11-21T09:45:12Z",
        "data": DataReport(
            problems=(
                Problem(
                    code="undecodable",
                    severity="warning",
                    message="files that are no image; left out",
                    count=2,
                    examples=("scans/7/0412.png", "scans/3/0077.png"),
                ),
                Problem(
                    code="small",
                    severity="info",
                    message="images smaller than the network’s input",
                    count=1397,
                ),
            ),
            rows=100 + 797 + images,
            dropped=2,
            classes=names,
            counts={
                f"source/{split}": {name: total // len(names) + (i % 3) for i, name in enumerate(names)}
                for split, total in splits.items()
            },
            sizes={
                "width_min": 8,
                "width_median": 8,
                "width_max": 8,
                "height_min": 8,
                "height_median": 8,
                "height_max": 8,
            },
            modes={"L": 1397},
        ),
        "ranking": ranking(),
        "chosen": Chosen(candidate="fonts-resnet10t", strategy="lp-ft"),
        "metrics": metrics,
        "baselines": (baseline("majority", 0.1), baseline("linear-probe", 0.93), baseline("scratch", 0.87)),
        "trials": (
            Trial(
                candidate="fonts-resnet10t",
                strategy="linear-probe",
                validation=0.894,
                test=0.888,
                seconds=0.3,
                history=(Epoch(phase="head", epoch=1, measures={"validation_accuracy": 0.894}),),
            ),
            Trial(
                candidate="fonts-resnet10t",
                strategy="lp-ft",
                validation=0.943,
                test=metrics.accuracy,
                seconds=11.8,
                history=history(0.894, 0.943, 15, head=True),
                validation_ci=Interval(low=0.925, high=0.957),
                validated_on="held-out, 797 images",
                notes=("bf16 autocast: 0.41 of the time of float32",),
            ),
            Trial(
                candidate="letters-mobilenetv3",
                strategy="linear-probe",
                validation=0.861,
                test=0.842,
                seconds=0.4,
                history=(Epoch(phase="head", epoch=1, measures={"validation_accuracy": 0.861}),),
            ),
            Trial(
                candidate="letters-mobilenetv3",
                strategy="lp-ft",
                validation=0.912,
                test=0.905,
                seconds=14.2,
                history=history(0.861, 0.912, 15, head=True),
            ),
        ),
        "halving": halving(),
        "adaptation": adaptation(folder) if "adaptation" not in changes else None,
        "parity": Parity(
            images=797,
            max_probability_difference=3.4e-6,
            top1_agreement=1.0,
            ties=1,
            accuracy_model=0.943,
            accuracy_file=0.943,
            tolerance=1e-3,
            passed=True,
            worst=("scans/8/0031",),
        ),
        "exported": Exported(path="model.onnx", format="onnx", bytes=19_712_334, opset=18, sha256="9f" * 32),
        "onnx": "runs/20261121-094512-7f3a/model.onnx",
        "card": "runs/20261121-094512-7f3a/card.html",
        "seconds": {
            "load": 0.4,
            "check": 0.9,
            "candidates": 0.1,
            "pixels": 0.6,
            "features-fonts-resnet10t": 3.1,
            "features-letters-mobilenetv3": 2.2,
            "score": 0.3,
            "train-fonts-resnet10t": 11.8,
            "train-letters-mobilenetv3": 14.2,
            "adapt-dann": 19.6,
            "evaluate": 0.8,
            "export": 4.4,
            "parity": 1.2,
        },
        "cached": ("load", "check", "pixels"),
        "config": {
            "name": "digits",
            "seed": 0,
            "models": [{"name": "local", "options": {"path": "zoo"}}],
            "selection": {"scorers": ["logme"], "shortlist": 2, "verify": True},
            "finetune": {"try": ["linear-probe", "lp-ft"], "lp-ft": {"epochs": 15, "lr": 0.001}},
            "data": {"source": "digits", "target": None, "validation": 0.15},
        },
        "versions": {
            "tlcore": "0.1.0",
            "python": "3.11.9",
            "torch": "2.15.0",
            "timm": "1.0.31",
            "onnxruntime": "1.31.0",
        },
        **trust(folder, names, p, y),
        "warnings": ("letters-resnet10t was left out: its weights do not fit the architecture.",),
    }
    return RunRecord(**(fields | changes))


def trust(folder: Path, names: tuple[str, ...], p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Calibration of a network twice too confident; a tenth of its labels changed before they are judged."""
    rng = np.random.default_rng(4)
    half = len(y) // 2
    sharp = at_temperature(p, 0.5)
    given = np.where(rng.random(half) < 1 / 10, (y[:half] + 1) % len(names), y[:half])
    uris = [str(folder / f"train-{i:04d}.png") for i in range(half)]
    ids = [f"train/{i:04d}" for i in range(half)]
    found = label_errors(
        p[:half], given, names, sample_ids=ids, uris=uris, found_by="a linear probe of the same network"
    )
    for suspect in found.suspects:
        digit(names.index(suspect.suggested), rng).save(suspect.uri)
    return {
        "calibration": fit_temperature(logits_of(sharp[half:]), y[half:]),
        "uncalibrated": reliability(sharp, y),
        "label_errors": found,
        "domains": per_domain(
            p.argmax(axis=1) == y, [("scans", "phone camera")[i % 3 == 0] for i in range(len(y))]
        ),
    }


def measured(
    folder: Path, names: tuple[str, ...], images: int, skill: float
) -> tuple[Metrics, np.ndarray, np.ndarray, np.ndarray]:
    """Metrics of a made-up classifier; the first pictures exist as files."""
    rng = np.random.default_rng(0)
    k = len(names)
    y = rng.integers(0, k, images)
    near = np.roll(np.eye(k), 1, axis=1) * 0.4 * skill  # each class is taken for the next one more often
    logits = rng.normal(size=(images, k)) + skill * np.eye(k)[y] + near[y] * (rng.random((images, 1)) < 0.3)
    p = np.exp(3.4 * logits)  # calibrated
    p /= p.sum(axis=1, keepdims=True)
    uris = [str(folder / f"scan-{i:04d}.png") for i in range(images)]
    ids = [f"scans/{names[c]}/{i:04d}" for i, c in enumerate(y)]
    metrics = measure(p, y, names, sample_ids=ids, uris=uris)
    for hard in metrics.top_losses:
        digit(names.index(hard.label), rng).save(hard.uri)
    return metrics, p.argmax(axis=1) == y, p, y


@cache
def _scans() -> Any:
    return load_digits()


def digit(label: int, rng: np.random.Generator) -> Image.Image:
    """A real scan of the digit."""
    scans = _scans()
    image = rng.choice(scans.images[scans.target == label % 10])
    return Image.fromarray((image * 15.9).astype(np.uint8))


def history(start: float, end: float, epochs: int, *, head: bool = False) -> tuple[Epoch, ...]:
    rng = np.random.default_rng(epochs)
    share = 1 - np.exp(-np.arange(1, epochs + 1) / 3)
    values = start + (end - start) * share + rng.normal(0, 0.004, epochs)
    lines = [Epoch(phase="head", epoch=1, measures={"validation_accuracy": start})] if head else []
    lines += [
        Epoch(
            phase="full",
            epoch=i + 1,
            losses={"total": float(1.1 * np.exp(-i / 4) + 0.08)},
            measures={"validation_accuracy": float(v)},
            seconds=0.8,
        )
        for i, v in enumerate(values)
    ]
    return tuple(lines)


def halving() -> Halving:
    """Three on the shortlist, two rungs; the first by rank wins."""
    rows = [
        ("fonts-resnet10t", 1, 1, 0.871, 0.44, 4.0, True),
        ("fonts-mobilenetv3", 1, 1, 0.884, 0.41, 3.1, True),
        ("letters-mobilenetv3", 1, 1, 0.852, 0.52, 3.0, False),
        ("fonts-mobilenetv3", 2, 2, 0.904, 0.37, 5.9, False),
        ("fonts-resnet10t", 2, 2, 0.912, 0.35, 7.2, True),
    ]
    return Halving(
        strategy="lp-ft",
        budget_seconds=60,
        shortlist=("fonts-resnet10t", "fonts-mobilenetv3", "letters-mobilenetv3"),
        rungs=tuple(
            Rung(candidate=c, rung=r, epochs=e, validation=v, loss=loss, seconds=s, survived=on)
            for c, r, e, v, loss, s, on in rows
        ),
        winner="fonts-resnet10t",
        reason="one candidate was left",
    )


def ranking() -> Ranking:
    rows = [
        ("fonts-resnet10t", 1, 0.412, 0.03, 4_900_000, 812, 0.944),
        ("fonts-mobilenetv3", 2, 0.391, 0.03, 1_518_592, 1604, 0.926),
        ("letters-mobilenetv3", 2, 0.383, 0.04, 1_518_592, 1590, 0.905),
        ("shapes-resnet10t", 4, 0.127, 0.03, 4_900_000, 806, 0.874),
        ("textures-efficientvit", 5, -0.034, 0.02, 2_300_000, 1220, 0.812),
        ("random-resnet10t", 6, -0.118, 0.02, 4_900_000, 815, 0.866),
    ]
    entries = [
        Ranked(
            candidate=name,
            rank=place,
            scores={"logme": value},
            spread={"logme": Interval(low=value - half, high=value + half)},
            params=params,
            images_per_second=speed,
            achieved=achieved,
        )
        for name, place, value, half, params, speed, achieved in rows
    ]
    entries.append(
        Ranked(
            candidate="letters-resnet10t",
            rank=None,
            skipped="weights do not fit: conv1.weight is [64, 3, 7, 7], resnet10t has [24, 3, 3, 3]; "
            "set the architecture in index.json",
        )
    )
    return Ranking(entries=tuple(entries), scorers=("logme",), images=100)

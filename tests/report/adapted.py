"""An adaptation as a real run leaves it: scans of digits, and the same turned to white paper, with noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tlcore.evaluation.gate import verdict
from tlcore.values import (
    TARGET,
    AccuracyEstimates,
    Adaptation,
    Adapted,
    DomainGap,
    Epoch,
    Interval,
    Point,
    Scatter,
)

CLASSES = tuple("0123456789")
REFUSED = "not sound here: the target lacks classes of the source, and it would pull target images onto them"
STOPPED = (
    "adapt, epoch 4 of 10: collapse: one class takes 91.0 % of the target images (source-only: 14.6 %), "
    "and BNM fell from 0.792 to 0.301"
)


def adaptation(folder: Path, classes: tuple[str, ...] = CLASSES) -> Adaptation:
    """Two adapters that finished, one stopped by a collapse, one refused, one failed; dann is kept."""
    base = outcome("source-only", (1.712, 0.792), 0.784, 0.991, estimates=(0.84, 0.81, 0.87))
    tried = [
        outcome(
            "coral",
            (1.803, 0.781),
            0.823,
            0.989,
            estimates=(0.86, 0.85, 0.90),
            seconds=14.9,
            history=lines(base, (1.803, 0.781), 0.823, 10, chosen=7),
        ),
        outcome(
            "dann",
            (1.954, 0.861),
            0.871,
            0.986,
            estimates=(0.89, 0.88, 0.93),
            seconds=19.6,
            history=lines(base, (1.954, 0.861), 0.871, 10, chosen=8),
        ),
        outcome(
            "mcd",
            (1.705, 0.801),
            0.741,
            0.902,
            estimates=(0.78, 0.71, 0.86),
            seconds=8.2,
            stopped=STOPPED,
            top_share=0.318,
            history=lines(base, (1.705, 0.801), 0.741, 4, chosen=2),
        ),
    ]
    # dann passes and is kept
    told = [
        entry.model_copy(update={"verdict": ("Kept: " if good else "Not kept: ") + why})
        for entry, (good, why) in (
            (entry, verdict(base, entry, floor=0.05, classes=len(classes))) for entry in tried
        )
    ]
    refused = Adapted(strategy="mcc", validator_score=0, source_validation_accuracy=0, refused=REFUSED)
    failed = Adapted(
        strategy="cdan", validator_score=0, source_validation_accuracy=0, failed="the loss is not finite"
    )
    return Adaptation(
        source_only=base,
        tried=(*told, refused, failed),
        kept="dann",
        validator="im + bnm",
        reason=" ".join(f"{entry.strategy}: {entry.verdict}" for entry in told),
        target_images=797,
        gap=gap(folder, classes),
        scatter=scatter(classes),
    )


def outcome(
    name: str, scores: tuple[float, float], accuracy: float, source: float, *, estimates: tuple[float, float, float],
    **more: Any,
) -> Adapted:  # fmt: skip
    confidence, entropy, difference = estimates
    fields: dict[str, Any] = {
        "validator_score": together(scores), "validators": dict(zip(("im", "bnm"), scores, strict=True)),
        "source_validation_accuracy": source, "accuracy": accuracy,
        "accuracy_ci": Interval(low=accuracy - 0.036, high=accuracy + 0.031),
        "accuracy_last": accuracy - (0.019 if "history" in more else 0),
        "accuracy_oracle": accuracy + (0.013 if "history" in more else 0),
        "estimates": AccuracyEstimates(
            atc_confidence=confidence, atc_entropy=entropy, difference_of_confidences=difference, temperature=1.31,
            low=min(estimates), high=max(estimates),
        ),
        "predicted_classes": 10, "nuclear_norm": scores[1], "top_share": 0.146,
        "cluster_agreement": accuracy - 0.2, "seconds": 8.1,
    }  # fmt: skip
    return Adapted(strategy=name, **(fields | more))


def together(scores: tuple[float, float]) -> float:
    return (scores[0] / np.log(10) + scores[1]) / 2


def lines(
    base: Adapted, scores: tuple[float, float], accuracy: float, epochs: int, *, chosen: int
) -> tuple[Epoch, ...]:
    """A history that starts near source-only and has the outcome's scores in the chosen epoch."""
    rng = np.random.default_rng(epochs * chosen)
    start = np.array([*base.validators.values(), base.accuracy, base.source_validation_accuracy])
    end = np.array([*scores, accuracy, 0.986])
    made = []
    for epoch in range(1, epochs + 1):
        now = start + (end - start) * (1 - np.exp(-epoch / 2.5)) + rng.normal(0, (0.02, 0.01, 0.006, 0.002))
        now = end if epoch == chosen else now - (0.0 if epoch < chosen else 0.04) * np.array([1, 1, 0.5, 0])
        im, bnm, target, source = (float(value) for value in now)
        measures = {
            "source_validation_accuracy": source,
            "validators": together((im, bnm)),
            "im": im,
            "bnm": bnm,
        }
        made.append(
            Epoch(
                phase="adapt", epoch=epoch, losses={"total": float(1.1 * np.exp(-epoch / 4) + 0.1 * rng.random())},
                measures=measures | {"target_test_accuracy": target}, seconds=1.4,
            )
        )  # fmt: skip
    return tuple(made)


def gap(folder: Path, classes: tuple[str, ...] = CLASSES) -> DomainGap:
    rng = np.random.default_rng(3)
    own, predicted, labelled = (rng.dirichlet(np.full(len(classes), 8.0)) for _ in range(3))
    return DomainGap(
        label_sets="closed", declared=False, a_distance={"scans": 1.64}, domain_error=0.09, coral=0.00213, mmd=0.0472,
        mmd_p=0.005, source_shares=dict(zip(classes, own, strict=True)),
        predicted_shares=dict(zip(classes, predicted, strict=True)),
        label_shares=dict(zip(classes, labelled, strict=True)), duplicates=7,
        duplicate_examples=("scans/4/0012.png = paper/0131.png", "scans/7/0045.png = paper/0007.png"),
        source_examples=pictures(folder, "source"), target_examples=pictures(folder, "target"),
    )  # fmt: skip


def pictures(folder: Path, name: str, number: int = 6) -> tuple[str, ...]:
    scans, rng = load_digits().images, np.random.default_rng(len(name))
    made = []
    for i in range(number):
        image = scans[rng.integers(len(scans))] / 16
        if name == "target":
            image = np.clip(1 - 0.7 * image + rng.normal(0, 0.12, image.shape), 0, 1)
        path = folder / f"{name}-{i}.png"
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
        made.append(str(path))
    return tuple(made)


def scatter(classes: tuple[str, ...] = CLASSES, images: int = 200) -> Scatter:
    """Clusters by class; before adaptation the target's lie beside the source's."""
    rng = np.random.default_rng(5)
    centres = rng.uniform(-40, 40, (len(classes), 2))
    label = rng.integers(len(classes), size=2 * images)
    target = np.arange(2 * images) >= images

    def plane(shift: float) -> tuple[Point, ...]:
        where = centres[label] + rng.normal(0, 3.5, (2 * images, 2)) + np.where(target, shift, 0)[:, None]
        return tuple(
            Point(
                x=round(float(x), 3), y=round(float(y), 3), domain=TARGET if t else "scans", label=classes[k]
            )
            for (x, y), k, t in zip(where, label, target, strict=True)
        )

    return Scatter(before=plane(14.0), after=plane(2.0))

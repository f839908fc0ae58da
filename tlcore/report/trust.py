"""What the run card shows of how far a result may be trusted: calibration, labels, hard images, classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from markupsafe import Markup

from tlcore.evaluation.comparison import negative_transfer, transfer_sentence
from tlcore.report import figures
from tlcore.report.calibration_figures import reliability_diagram
from tlcore.report.drawing import svg
from tlcore.report.thumbnails import thumbnail
from tlcore.values import (
    Calibration,
    ClassRow,
    LabelErrors,
    Metrics,
    Reliability,
    RunRecord,
    Suspect,
    TopLoss,
)

__all__ = [
    "CalibrationView", "ClassesView", "LabelErrorsView", "ShownImage", "TransferView", "calibration_view", "classes_view",
    "hard_images", "label_errors_view", "transfer_view",
]  # fmt: skip

_PAIRS = 8  # pairs of classes whose labels are most often confused


@dataclass(frozen=True)
class TransferView:
    """One sentence, its head, and whether a reader must be warned."""

    head: str
    rest: str
    warn: bool


def transfer_view(record: RunRecord) -> TransferView | None:
    said = transfer_sentence(record.baselines, record.chosen.strategy)
    if said is None:
        return None
    head, _, rest = said.partition(":")
    return TransferView(
        head, rest.strip(), negative_transfer(record.baselines, record.chosen.strategy) is not None
    )


@dataclass(frozen=True)
class CalibrationView:
    """`answers`: of the file on the test images; `before`: without its temperature, where it has one."""

    figure: Markup
    answers: Reliability
    before: Reliability | None
    fitted: Calibration | None


def calibration_view(record: RunRecord) -> CalibrationView | None:
    answers = record.metrics.reliability if isinstance(record.metrics, Metrics) else None
    if answers is None:
        return None
    drawn = reliability_diagram(answers, record.uncalibrated)
    label = "Reliability diagram: accuracy by confidence on the test images"
    return CalibrationView(Markup(svg(drawn, label)), answers, record.uncalibrated, record.calibration)


@dataclass(frozen=True)
class ClassesView:
    """Rows from the weakest recall on; folded where there are many."""

    rows: list[ClassRow]
    folded: bool


def classes_view(metrics: Metrics) -> ClassesView | None:
    rows = sorted(metrics.classes, key=lambda row: (row.recall, row.f1))
    return ClassesView(rows, len(rows) > figures.MANY) if rows else None


@dataclass(frozen=True)
class ShownImage:
    entry: TopLoss | Suspect
    picture: str | None

    @property
    def file(self) -> str:
        return PurePath(self.entry.uri).name or self.entry.sample_id


def _shown(record: RunRecord, entry: TopLoss | Suspect) -> ShownImage:
    return ShownImage(entry, thumbnail(record.thumbnails.get(entry.sample_id, entry.uri)))


def hard_images(record: RunRecord) -> list[ShownImage]:
    """The test images with the largest losses, with their pictures."""
    found = record.metrics.top_losses if isinstance(record.metrics, Metrics) else ()
    return [_shown(record, entry) for entry in found]


@dataclass(frozen=True)
class LabelErrorsView:
    """pairs: (label, likely class, images) off the diagonal of the confident joint, most images first."""

    found: LabelErrors
    suspects: list[ShownImage]
    pairs: list[tuple[str, str, int]]


def label_errors_view(record: RunRecord) -> LabelErrorsView | None:
    found = record.label_errors
    if found is None:
        return None
    names = record.data.classes
    pairs = [
        (names[i], names[j], count)
        for i, row in enumerate(found.counts if len(found.counts) == len(names) else ())
        for j, count in enumerate(row)
        if count and i != j
    ]
    pairs.sort(key=lambda pair: -pair[2])
    return LabelErrorsView(found, [_shown(record, one) for one in found.suspects], pairs[:_PAIRS])

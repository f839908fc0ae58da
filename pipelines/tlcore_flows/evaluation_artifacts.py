"""Artifacts of an evaluation: the result against the baselines, and how far it may be trusted."""

from __future__ import annotations

from tlcore.evaluation.comparison import MEAN_ABSOLUTE_ERROR
from tlcore.stages.values import Evaluation
from tlcore.values import Calibration, LabelErrors, Metrics, NumberMetrics, Reliability
from tlcore_flows.artifact_text import cell

__all__ = ["calibration_rows", "class_rows", "evaluation_rows", "label_error_rows", "publish"]

Row = dict[str, object]


def publish(found: Evaluation) -> None:
    """Tables and pictures of the evaluation, those alone that have something to show."""
    from prefect.artifacts import create_image_artifact, create_table_artifact

    from tlcore.evaluation.comparison import transfer_sentence
    from tlcore.report import figures
    from tlcore.report.calibration_figures import reliability_diagram
    from tlcore.report.drawing import data_uri

    said = transfer_sentence(found.baselines, found.strategy) or ""
    create_table_artifact(
        evaluation_rows(found),
        key="evaluation",
        description=f"{found.metrics.images} test images. {said}".strip(),
    )
    metrics = found.metrics
    if not isinstance(metrics, Metrics):
        return
    if metrics.confusion and len(found.classes) <= figures.MANY:
        figure = figures.confusion_matrix(found.classes, metrics.confusion)
        create_image_artifact(
            data_uri(figure), key="confusion-matrix", description="true class by predicted class"
        )
    if metrics.classes:
        create_table_artifact(
            class_rows(metrics), key="classes", description="test images by class, the weakest first"
        )
    if metrics.reliability is not None:
        create_table_artifact(
            calibration_rows(metrics.reliability, found.uncalibrated, found.calibration), key="calibration",
            description=_calibration_words(found.calibration),
        )  # fmt: skip
        create_image_artifact(
            data_uri(reliability_diagram(metrics.reliability, found.uncalibrated)), key="reliability",
            description="accuracy by confidence on the test images",
        )  # fmt: skip
    if metrics.top_losses:
        rows: list[Row] = [
            {"image": cell(e.uri), "label": cell(e.label), "predicted": cell(e.predicted), "loss": e.loss}
            for e in metrics.top_losses
        ]
        create_table_artifact(
            rows, key="top-losses", description="test images that the network finds hardest"
        )
    if found.label_errors is not None and found.label_errors.suspects:
        create_table_artifact(
            label_error_rows(found.label_errors),
            key="label-errors",
            description=_label_error_words(found.label_errors),
        )


def evaluation_rows(found: Evaluation) -> list[Row]:
    """The result, each baseline with its difference and interval, and each domain where there are several."""
    metrics = found.metrics
    accuracy = metrics.accuracy if isinstance(metrics, Metrics) else None
    named = found.baselines[0].measure if found.baselines else "accuracy"
    if isinstance(metrics, NumberMetrics) and named == MEAN_ABSOLUTE_ERROR:
        accuracy = metrics.mean_absolute_error
    rows: list[Row] = [{"what": "result", named: accuracy, "difference": None}]
    for one in found.baselines:
        rows.append({"what": one.baseline, named: one.accuracy, "difference": one.difference})
    for domain in found.domains:
        name = f"result on {cell(domain.domain)} ({domain.images} images)"
        rows.append({"what": name, named: domain.accuracy, "difference": None})
    return rows


def class_rows(metrics: Metrics) -> list[Row]:
    """Recall, precision and F1 of each class, the weakest recall first."""
    return [
        {
            "class": cell(row.name), "images": row.images, "recall": row.recall,
            "recall, 95 % interval": f"{row.recall_ci.low:.3f} to {row.recall_ci.high:.3f}",
            "precision": row.precision, "F1": row.f1,
        }
        for row in sorted(metrics.classes, key=lambda row: (row.recall, row.f1))
    ]  # fmt: skip


def calibration_rows(
    answers: Reliability, before: Reliability | None, fitted: Calibration | None
) -> list[Row]:
    """Calibration error and log loss before and after the temperature, on validation and on test images."""
    rows: list[Row] = []
    if fitted is not None and fitted.images:
        rows.append(
            {
                "images": "validation, cross-fitted", "number": fitted.images,
                "calibration error before": fitted.error_before, "calibration error after": fitted.error_after,
                "log loss before": fitted.nll_before, "log loss after": fitted.nll_after,
            }
        )  # fmt: skip
    first, after = (answers, None) if before is None else (before, answers)
    rows.append(
        {
            "images": "test", "number": answers.images, "calibration error before": first.calibration_error,
            "calibration error after": None if after is None else after.calibration_error,
            "log loss before": first.log_loss, "log loss after": None if after is None else after.log_loss,
        }
    )  # fmt: skip
    return rows


def _calibration_words(fitted: Calibration | None) -> str:
    if fitted is None:
        return "as the network answers; no temperature was fitted"
    return f"temperature {fitted.temperature:.3g}: {fitted.why}"


def label_error_rows(found: LabelErrors) -> list[Row]:
    """Training images whose labels are probably wrong, the most certain first."""
    return [
        {
            "image": cell(one.uri), "label": cell(one.label), "looks like": cell(one.suggested),
            "probability of the label": one.self_confidence, "of the other": one.suggested_probability,
        }
        for one in found.suspects
    ]  # fmt: skip


def _label_error_words(found: LabelErrors) -> str:
    return (
        f"{found.found} of {found.images} training labels look wrong to {found.found_by}, trained without the image; "
        f"estimated share of wrong labels {found.error_share:.1%}"
    )

"""Prefect artifacts of finished stages."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow

from tests.report import adapted
from tlcore.evaluation.calibration import fit_temperature, reliability
from tlcore.evaluation.label_errors import label_errors
from tlcore.evaluation.metrics import measure
from tlcore.evaluation.rows import per_domain
from tlcore.report.verdicts import NOT_MEASURABLE
from tlcore.stages.base import StageJob, StageResult
from tlcore.stages.values import AdaptedModel, CheckedData, Evaluation
from tlcore.store import Store
from tlcore.values import (
    Candidate,
    Checkpoint,
    Comparison,
    DataReport,
    Interval,
    Metrics,
    Parity,
    Preprocess,
    Problem,
    Ranked,
    Ranking,
    Ref,
    Value,
)
from tlcore_flows import adaptation_artifacts, artifacts, evaluation_artifacts

pytestmark = pytest.mark.slow  # a Prefect server

HALF = Interval(low=0.4, high=0.6)
REPORT = DataReport(
    problems=(
        Problem(
            code="unreadable", severity="warning", message="cannot | be read", examples=("<b>x</b>.jpg",)
        ),
    ),
    rows=4,
    dropped=1,
    classes=("ant", "[bee](http://x)"),
    counts={"source/train": {"ant": 2, "[bee](http://x)": 2}},
)
RANKING = Ranking(
    entries=(
        Ranked(candidate="Net_A", rank=1, scores={"logme": 0.5}, spread={"logme": HALF}),
        Ranked(candidate="b", rank=None, skipped="it does not fit"),
    ),
    scorers=("logme",),
    images=20,
)
PANEL = Ranking(
    entries=(
        Ranked(
            candidate="a", rank=1, panel=0.4, scores={"logme": 0.5, "lda": 0.9}, params=10, gmacs=0.5, rank_interval=HALF,
            achieved=0.8,
        ),
        Ranked(candidate="b", rank=2, panel=0.6, scores={"logme": 0.4, "lda": 0.8}, params=20, gmacs=0.9, achieved=0.9),
    ),
    scorers=("logme", "lda"),
    images=20,
)  # fmt: skip
METRICS = Metrics(
    images=2,
    accuracy=0.5,
    accuracy_ci=HALF,
    balanced_accuracy=0.5,
    balanced_accuracy_ci=HALF,
    macro_f1=0.5,
    macro_f1_ci=HALF,
    calibration_error=0.1,
    calibration_error_ci=HALF,
    per_class={"ant": 1.0, "bee": 0.0},
    confusion=((1, 0), (1, 0)),
)
EVALUATION = Evaluation(
    metrics=METRICS,
    baselines=(
        Comparison(baseline="majority", accuracy=0.5, difference=0, difference_ci=HALF, better=False),
    ),
    domain="source",
    classes=("ant", "bee"),
)
PARITY = Parity(
    images=256,
    max_probability_difference=1e-6,
    top1_agreement=1.0,
    accuracy_model=0.9,
    accuracy_file=0.9,
    tolerance=1e-3,
    passed=True,
)
CHECKED = CheckedData(
    name="x", classes=REPORT.classes, rows=4, fingerprint="f", has_target=False, report=REPORT
)


def adapted_model(folder: Path) -> AdaptedModel:
    whole = adapted.adaptation(folder)
    entry = whole.tried[1]
    checkpoint = Checkpoint(
        candidate=Candidate(name="a", source={}, architecture="a"),
        classes=adapted.CLASSES,
        preprocess=Preprocess(height=8, width=8),
        weights="weights.safetensors",
        strategy="dann",
        history=entry.history,
    )
    return AdaptedModel(
        checkpoint=checkpoint, adapted=entry, source_only=whole.source_only, target_images=whole.target_images
    )


@given(st.lists(st.text(), max_size=4))
def test_a_key_holds_lower_case_letters_digits_and_dashes(parts: list[str]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", artifacts.key(*parts))


def test_names_in_the_data_report_are_no_markup() -> None:
    text = artifacts.data_report(REPORT)
    assert "<b>" not in text
    assert "](" not in text
    assert "cannot \\| be read" in text
    assert "| 2 |" in text


def test_an_adapter_stands_beside_source_only_with_three_accuracies_validators_and_estimates(
    tmp_path: Path,
) -> None:
    rows = {row["what"]: (row["source-only"], row["adapter"]) for row in rows_of(adapted_model(tmp_path))}
    assert rows["target accuracy, label-free choice"] == (0.784, 0.871)
    assert rows["its 95 % interval"][1] == "0.835 to 0.902"
    assert rows["target accuracy, last epoch"][1] == 0.852
    assert rows["target accuracy, oracle, which peeks at the labels"][1] == 0.884
    assert rows["validator im"] == (1.712, 1.954) and rows["all validators together"] == (0.7678, 0.8548)
    assert rows["expected target accuracy, lowest"] == (0.81, 0.88)
    assert "stopped early" not in rows


def rows_of(model: AdaptedModel) -> list[dict[str, Any]]:
    return adaptation_artifacts.adapted_rows(model)


def test_without_target_labels_three_rows_say_that_nothing_can_be_measured(tmp_path: Path) -> None:
    blind = {"accuracy": None, "accuracy_ci": None, "accuracy_last": None, "accuracy_oracle": None}
    model = adapted_model(tmp_path)
    stopped = blind | {"stopped": "collapse", "target_only": True}
    model = model.model_copy(
        update={
            "adapted": model.adapted.model_copy(update=stopped),
            "source_only": model.source_only.model_copy(update=blind),
        }
    )
    rows = rows_of(model)
    unknown = [row["what"] for row in rows if row["adapter"] == row["source-only"] == NOT_MEASURABLE]
    assert len(unknown) == 3
    assert rows[-1] == {"what": "stopped early", "source-only": "", "adapter": "collapse"}
    assert "not asked: for the target alone" in [row["adapter"] for row in rows]


def test_names_in_the_gap_report_are_no_markup(tmp_path: Path) -> None:
    gap = adapted.gap(tmp_path, ("<b>x</b>", "a | b"))
    gap = gap.model_copy(update={"notes": ("[a](http://x)",), "duplicate_examples": ("<i>1</i> = 2",)})
    text = adaptation_artifacts.gap_report(gap)
    assert "| Proxy A-distance | 1.64 of 2 |" in text
    assert "<" not in text.replace("\\<", "") and "](" not in text.replace("\\]", "")
    assert "a \\| b" in text and "**Note:**" in text


def published(value: Value, job: StageJob, root: Path) -> list[Any]:
    """Store the value as the job's result, publish it from a flow, and read its artifacts back."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.runtime import flow_run

    store = Store.open(root)
    ref, _ = store.compute(job.stage, "key", lambda work: work.write(value))

    @flow
    def publishing() -> str:
        artifacts.publish(job, StageResult(ref=ref, cached=False, seconds=1), store)
        return str(flow_run.id)

    run_id = publishing()
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )


MAIN = {"baseline:majority": (Ref(stage="train", key="k", path="p"),)}


def trusted() -> Evaluation:
    """An evaluation with all that there can be of it."""
    p, y = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.2, 0.8]]), np.array([0, 0, 1, 1])
    names, ids = ("ant", "b | ee"), list("wxyz")
    return EVALUATION.model_copy(
        update={
            "metrics": measure(p, y, names, sample_ids=ids, uris=ids, replicates=100),
            "uncalibrated": reliability(np.eye(2)[p.argmax(1)], y),
            "calibration": fit_temperature(np.log(p), y),
            "label_errors": label_errors(p, y, names, sample_ids=ids, uris=ids, found_by="the model"),
            "domains": per_domain(p.argmax(1) == y, ["art", "photo", "art", "photo"]),
            "classes": names,
        }
    )


@pytest.mark.usefixtures("prefect_server")
def test_a_probe_is_not_told_that_it_is_no_better_than_itself(store: Path) -> None:
    same = Comparison(
        baseline="linear-probe", accuracy=0.5, difference=0.0, difference_ci=Interval(low=-0.1, high=0.1), better=False,
    )  # fmt: skip
    found = EVALUATION.model_copy(update={"baselines": (same,), "strategy": "linear-probe"})
    job = StageJob(stage="evaluate", inputs=MAIN)

    def said(value: Evaluation, key: str) -> str:
        return next(a.description for a in published(value, job, store / key) if a.key == "evaluation")

    assert "frozen probe" not in said(found, "probe")
    assert "frozen probe" in said(found.model_copy(update={"strategy": "lp-ft"}), "lp-ft")


def test_the_tables_of_an_evaluation_hold_its_numbers_and_no_markup() -> None:
    found = trusted()
    assert (
        isinstance(found.metrics, Metrics)
        and found.label_errors is not None
        and found.metrics.reliability is not None
    )
    rows = evaluation_artifacts.evaluation_rows(found)
    assert [row["what"] for row in rows] == [
        "result",
        "majority",
        "result on art (2 images)",
        "result on photo (2 images)",
    ]
    classes = evaluation_artifacts.class_rows(found.metrics)
    assert {row["class"] for row in classes} == {"ant", "b \\| ee"} and classes[0]["recall"] == 0.5
    validation, test = evaluation_artifacts.calibration_rows(
        found.metrics.reliability, found.uncalibrated, found.calibration
    )
    assert validation["number"] == 4 and test["calibration error before"] == 0.5
    assert test["log loss after"] == pytest.approx(-np.log([0.9, 0.3, 0.2, 0.8]).mean())
    (only,) = evaluation_artifacts.calibration_rows(found.metrics.reliability, None, None)
    assert only["log loss before"] == test["log loss after"] and only["log loss after"] is None
    suspects = evaluation_artifacts.label_error_rows(found.label_errors)
    assert {row["label"] for row in suspects} <= {"ant", "b \\| ee"} and len(suspects) == 2


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("job", "value", "expected"),
    [
        (StageJob(stage="check"), CHECKED, {("data-report", "markdown")}),
        (StageJob(stage="rank"), RANKING, {("ranking", "table"), ("ranking-logme", "image")}),
        (
            StageJob(stage="rank"),
            PANEL,
            {("ranking", "table"), ("ranking-cost", "image"), ("ranking-intervals", "image")},
        ),
        (
            StageJob(stage="evaluate", inputs=MAIN),
            EVALUATION,
            {("evaluation", "table"), ("confusion-matrix", "image")},
        ),
        (
            StageJob(stage="evaluate", inputs=MAIN),
            trusted(),
            {
                ("evaluation", "table"),
                ("confusion-matrix", "image"),
                ("classes", "table"),
                ("calibration", "table"),
                ("reliability", "image"),
                ("top-losses", "table"),
                ("label-errors", "table"),
            },
        ),
        (StageJob(stage="evaluate", subject="trial"), EVALUATION, set()),
        (StageJob(stage="parity"), PARITY, {("parity", "table")}),
        (StageJob(stage="pixels"), PARITY, set()),
    ],
)
def test_a_finished_stage_leaves_what_a_person_wants_to_see(
    job: StageJob, value: Value, expected: set[tuple[str, str]], store: Path
) -> None:
    found = published(value, job, store)
    assert {(artifact.key, artifact.type) for artifact in found} == expected
    for artifact in found:
        if artifact.type == "image":
            assert str(artifact.data).startswith("data:image/png;base64,")


@pytest.mark.usefixtures("prefect_server")
def test_adaptation_leaves_the_gap_the_adapter_and_the_features(store: Path, tmp_path: Path) -> None:
    whole = adapted.adaptation(tmp_path)
    assert whole.gap is not None and whole.scatter is not None

    def left(job: StageJob, value: Value) -> set[tuple[str | None, str | None]]:
        return {(artifact.key, artifact.type) for artifact in published(value, job, store)}

    assert left(StageJob(stage="gap"), whole.gap) == {
        ("domain-gap", "markdown"), ("domain-gap-classes", "image"), ("domain-gap-examples", "image"),
    }  # fmt: skip
    assert left(StageJob(stage="adapt", subject="dann"), adapted_model(tmp_path)) == {
        ("target-adapt-dann", "table"), ("curves-adapt-dann", "image"), ("validators-adapt-dann", "image"),
    }  # fmt: skip
    assert left(StageJob(stage="scatter"), whole.scatter) == {
        ("features-domain", "image"),
        ("features-class", "image"),
    }


@pytest.mark.usefixtures("prefect_server")
def test_an_artifact_that_fails_is_logged_and_ends_nothing(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tlcore_flows.artifacts"):
        found = published(PARITY, StageJob(stage="rank"), store)  # a value of another stage
    assert found == []
    assert "no artifact for rank" in caplog.text


@pytest.mark.usefixtures("prefect_server")
def test_progress_is_one_artifact_that_moves() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    @flow
    def working() -> None:
        progress = artifacts.ProgressArtifact("train-Net_A")
        for percent in (10, 60):
            progress.update(percent, f"epoch {percent}")

    working()
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["progress-train-net-a"]))
        )
    assert (found.data, found.description) == (60, "epoch 60")

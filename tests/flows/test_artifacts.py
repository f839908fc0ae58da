"""Prefect artifacts of finished stages."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow

from tlcore.stages.base import StageJob, StageResult
from tlcore.stages.values import CheckedData, Evaluation
from tlcore.store import Store
from tlcore.values import (
    Comparison,
    DataReport,
    Interval,
    Metrics,
    Parity,
    Problem,
    Ranked,
    Ranking,
    Ref,
    Value,
)
from tlcore_flows import artifacts

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


@given(st.lists(st.text(), max_size=4))
def test_a_key_holds_lower_case_letters_digits_and_dashes(parts: list[str]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", artifacts.key(*parts))


def test_names_in_the_data_report_are_no_markup() -> None:
    text = artifacts.data_report(REPORT)
    assert "<b>" not in text
    assert "](" not in text
    assert "cannot \\| be read" in text
    assert "| 2 |" in text


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

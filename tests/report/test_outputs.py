from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest

from tests.report.conftest import Make
from tlcore.evaluation.regression_metrics import compare_numbers, measure_numbers
from tlcore.evaluation.tag_metrics import compare_tags, measure_tags
from tlcore.report.card import render
from tlcore.report.document import RUN_SCHEMA, run_document
from tlcore.report.outputs import score_text
from tlcore.values import DataReport, RunRecord


def numbers(make: Make) -> RunRecord:
    rng = np.random.default_rng(0)
    truth = 40 + 20 * rng.normal(size=80)
    answers = truth + 5 * rng.normal(size=80)
    names = [f"<i>{k}" for k in range(80)]
    metrics = measure_numbers(answers, truth, sample_ids=names, uris=names, replicates=100)
    mean = compare_numbers(answers, np.full(80, 40.0), truth, "mean")
    data = DataReport(
        rows=300, classes=("age <b>",), task="regression", counts={"source/test": {"age <b>": 80}}
    )
    return make(metrics=metrics, baselines=(mean,), data=data, adaptation=None)


def tags(make: Make) -> RunRecord:
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 2)) < 0.4).astype(float)
    answers = np.clip(0.5 * truth + 0.5 * rng.random((60, 2)), 0, 1)
    metrics = measure_tags(answers, truth, ("cat", "dog <b>"), replicates=100)
    often = compare_tags(answers, np.broadcast_to(truth.mean(0), truth.shape), truth, "tag-frequencies")
    data = DataReport(
        rows=300,
        classes=("cat", "dog <b>"),
        task="multi-label",
        counts={"source/test": {"cat": 20}},
        images={"source/test": 60},
    )
    return make(metrics=metrics, baselines=(often,), data=data, adaptation=None)


def test_the_card_of_numbers_speaks_of_errors_and_of_no_class(make: Make) -> None:
    page = render(numbers(make))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for said in (
        "Mean absolute error",
        "explains",
        "Largest errors",
        "the mean of the training labels",
        "in deviations",
    ):
        assert said in text
    assert "Confusion" not in page and "Test accuracy" not in text and "<b>" not in page


def test_the_card_of_tags_lists_each_tag(make: Make) -> None:
    page = render(tags(make))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert (
        "mean average precision" in text and "dog &lt;b&gt;" in page and "how often each tag is there" in text
    )
    assert "Test accuracy" not in text


@pytest.mark.parametrize("record", [numbers, tags])
def test_the_document_keeps_its_schema(make: Make, record: object) -> None:
    made = run_document(record(make))  # type: ignore[operator]
    jsonschema.Draft202012Validator(RUN_SCHEMA).validate(json.loads(json.dumps(made)))
    assert made["metrics"]["images"] in (60, 80)


def test_the_headline_is_one_line(make: Make) -> None:
    assert score_text(numbers(make).metrics).startswith("R² 0.9")
    assert score_text(tags(make).metrics).startswith("mean average precision ")
    assert score_text(make().metrics).startswith("accuracy ")

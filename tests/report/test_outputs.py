from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest

from tests.report.conftest import Make
from tlcore.evaluation.comparison import negative_transfer
from tlcore.evaluation.regression_metrics import compare_numbers, measure_numbers
from tlcore.evaluation.tag_metrics import compare_tags, measure_tags
from tlcore.report.card import render
from tlcore.report.document import RUN_SCHEMA, run_document
from tlcore.report.outputs import score_text
from tlcore.selection.halving import achieved_in_trial
from tlcore.values import (
    Chosen,
    DataReport,
    Halving,
    Ranked,
    Ranking,
    Rung,
    RunRecord,
    SearchResult,
    SearchTrial,
)


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def with_trial(record: RunRecord, measure: str) -> RunRecord:
    """The record after a trial that ended below zero, and a search."""
    rungs = tuple(
        Rung(candidate=name, rung=1, epochs=1, validation=value, seconds=1.0)
        for name, value in (("one", -0.25), ("two", 0.5))
    )
    trial = Halving(
        strategy="lp-ft",
        budget_seconds=60,
        shortlist=("one", "two"),
        rungs=rungs,
        winner="two",
        reason="better",
    )
    ranking = Ranking(
        entries=tuple(
            Ranked(candidate=name, rank=rank, scores={"logme": 3.0 - rank}, achieved=value)
            for rank, (name, value) in enumerate((("one", -0.25), ("two", 0.5)), 1)
        ),
        scorers=("logme",), images=80, achieved_measure=achieved_in_trial(measure),
    )  # fmt: skip
    search = SearchResult(
        candidate="two", strategy="lp-ft", space={"lr": "1e-06 to 0.1, log"}, best=1, reason="all were made",
        trials=(SearchTrial(number=0, validation=0.25), SearchTrial(number=1, validation=0.5)),
    )  # fmt: skip
    return record.model_copy(
        update={
            "halving": trial, "ranking": ranking, "searches": (search,), "trials": (),
            "chosen": Chosen(candidate="two", strategy="lp-ft"),
        }
    )  # fmt: skip


@pytest.mark.slow
def test_r_squared_is_no_percentage_on_the_card_the_terminal_and_in_the_document(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcore_flows.cli_tables import print_run

    monkeypatch.setenv("COLUMNS", "200")
    record = with_trial(numbers(make), "R²")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render(record)))
    print_run(record)
    shown = capsys.readouterr().out
    for place in (text, shown):
        assert "−0.250" in place and "validation R² in the trial" in place
        assert "25.0" not in place and "validation accuracy" not in place
    assert "was 0.750 below two" in text and "The best trial is 0.250 above" in text and "points" not in shown
    document = json.loads(json.dumps(run_document(record)))
    jsonschema.Draft202012Validator(RUN_SCHEMA).validate(document)
    assert document["trial"]["rungs"][0]["validation"] == -0.25


def test_mean_average_precision_is_a_percentage_of_its_own_name(make: Make) -> None:
    record = with_trial(tags(make), "mean average precision")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render(record)))
    assert "validation mean average precision in the trial" in text and "was 75.0 points below two" in text


def test_the_sentence_on_transfer_is_said_once_in_the_terminal(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcore_flows.cli_tables import print_run

    monkeypatch.setenv("COLUMNS", "300")
    record = numbers(make)
    rng = np.random.default_rng(1)
    truth, answers = 40 + 20 * rng.normal(size=80), 40 + 20 * rng.normal(size=80)
    scratch = compare_numbers(answers, truth + rng.normal(size=80), truth, "scratch")
    negative = negative_transfer((scratch,))
    assert negative is not None and "of mean absolute error" in negative and "points" not in negative
    print_run(record.model_copy(update={"baselines": (scratch,), "warnings": (negative, "another")}))
    shown = capsys.readouterr().out
    assert shown.count("Negative transfer") == 1 and "warning: another" in shown


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, 5.0])
def test_a_budget_and_what_it_ended_are_told(
    make: Make, budget: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    from tlcore_flows.cli_tables import print_run

    record = make(config={"finetune": {"budget": budget}}, adaptation=None)
    notes = ("full, 12.0 of 1000 epochs: the budget of 5 s",)
    trained = tuple(
        one.model_copy(update={"notes": notes if one.strategy == record.chosen.strategy else ()})
        for one in record.trials
    )
    record = record.model_copy(update={"trials": trained})
    print_run(record)
    shown = capsys.readouterr().out
    assert shown.count("training: full, 12.0 of 1000 epochs") == 1
    assert ("each training: at most 5 s" in shown) == (budget is not None)
    assert ("each in at most 5" in render(record)) == (budget is not None)

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests.report.conftest import Make
from tlcore.report.card import render
from tlcore.report.document import RUN_SCHEMA, run_document
from tlcore.report.search import search_figure, search_views
from tlcore.values import RunRecord, SearchResult, SearchTrial, SoupResult


def searched(**changes: Any) -> SearchResult:
    trials = (
        SearchTrial(
            number=0, options={"lr": 1e-4, "kind": "a"}, validation=0.90, loss=0.3, seconds=4.0, epochs=5
        ),
        SearchTrial(
            number=1, options={"lr": 3e-2, "kind": "b"}, validation=0.41, seconds=1.5, epochs=2, pruned=True
        ),
        SearchTrial(number=2, options={"lr": 9e-2, "kind": "b"}, failed="the loss is <nan>", seconds=0.5),
        SearchTrial(
            number=3, options={"lr": 2.5e-4, "kind": "a"}, validation=0.93, loss=0.2, seconds=4.0, epochs=5
        ),
    )
    fields: dict[str, Any] = {
        "candidate": "fonts-resnet10t", "strategy": "lp-ft", "space": {"lr": "1e-06 to 0.1, log", "kind": "a, b"},
        "trials": trials, "best": 3, "wanted": 4, "reason": "4 trials were asked for", **changes,
    }  # fmt: skip
    return SearchResult(**fields)


SOUP = SoupResult(members=(3, 0), offered=(3, 0), validation=0.94, single=0.93, kept=True)


@pytest.fixture
def with_search(record: RunRecord) -> RunRecord:
    return record.model_copy(
        update={
            "searches": (searched(soup=SOUP),),
            "decisions": ("auto → lp-ft on <b>x</b> (12 images a class)",),
        }
    )


@pytest.mark.slow
def test_the_card_lists_every_trial_with_what_varies_best_first(with_search: RunRecord) -> None:
    (view,) = search_views(with_search)
    assert [row.trial.number for row in view.rows] == [3, 0, 1, 2]
    assert [row.options for row in view.rows[:2]] == [["0.00025", "a"], ["0.0001", "a"]]
    assert [row.outcome for row in view.rows] == [
        "in the soup", "as configured, in the soup", "ended after 2 epochs", "failed: the loss is <nan>",
    ]  # fmt: skip
    assert view.gain == pytest.approx(0.03) and [row.best for row in view.rows] == [True, False, False, False]
    page = render(with_search)
    for words in (
        '<section id="search">',
        "1e-06 to 0.1, log",
        "ended after 2 epochs",
        "mean of the weights of trials 3, 0",
    ):
        assert words in page
    assert "the loss is &lt;nan&gt;" in page and "on &lt;b&gt;x&lt;/b&gt; (12" in page


@pytest.mark.slow
def test_without_a_search_the_card_says_nothing_of_one(record: RunRecord) -> None:
    assert 'id="search"' not in render(record) and "#search" not in render(record)


def test_the_documents_search_follows_the_schema_and_keeps_every_trial(with_search: RunRecord) -> None:
    document = run_document(with_search)
    jsonschema.Draft202012Validator(RUN_SCHEMA).validate(document)
    (search,) = document["searches"]
    assert [trial["number"] for trial in search["trials"]] == [0, 1, 2, 3]
    assert search["soup"]["kept"] is True and search["seconds"] == 10.0
    assert document["decisions"] == list(with_search.decisions) and json.dumps(document, allow_nan=False)


@pytest.mark.slow
def test_a_search_without_a_soup_or_a_second_trial_is_shown_too(make: Make) -> None:
    one = searched(trials=(SearchTrial(number=0, options={"lr": 1e-4, "kind": "a"}, validation=0.9),), best=0)
    record = make(searches=(one, searched(soup=SOUP.model_copy(update={"kept": False, "members": (3,)}))))
    assert search_figure(one) is None
    page = render(record)
    assert "None was better than the configured options" in page and "trials 3, 0 were looked at" in page


def test_old_records_have_no_search(record: RunRecord) -> None:
    old = record.model_dump(mode="json", exclude={"searches", "decisions"})
    assert RunRecord.model_validate(old).searches == ()

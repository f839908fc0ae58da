from __future__ import annotations

import json

import jsonschema
import pytest

from tlcore.report.document import RANKING_SCHEMA, RUN_SCHEMA, ranking_document, run_document
from tlcore.values import Adapted, Ranked, Ranking, RunRecord


def check(document: object, schema: dict[str, object]) -> None:
    json.dumps(document, allow_nan=False)
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("schema", [RUN_SCHEMA, RANKING_SCHEMA])
def test_the_schemas_are_schemas(schema: dict[str, object]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_run_document_follows_its_schema(record: RunRecord) -> None:
    check(run_document(record), RUN_SCHEMA)
    check(run_document(record.model_copy(update={"adaptation": None, "baselines": ()})), RUN_SCHEMA)


def test_the_run_document_has_what_scripts_were_promised(record: RunRecord) -> None:
    document = run_document(record)
    assert document["run_id"] == record.run_id
    assert document["chosen"] == {
        "candidate": "fonts-resnet10t",
        "strategy": "lp-ft",
        "options": {},
        "kept_start": "",
    }
    assert document["metrics"]["accuracy"] == record.metrics.accuracy
    low, high = document["metrics"]["accuracy_ci"]
    assert low < document["metrics"]["accuracy"] < high
    assert document["baselines"] == {entry.baseline: entry.accuracy for entry in record.baselines}
    assert document["adaptation"]["kept"] == "dann"
    assert document["parity"]["passed"] is True
    assert (document["onnx"], document["card"]) == (record.onnx, record.card)
    assert document["seconds"]["load"] == 0.4
    assert document["cached"] == ["load", "check", "pixels"]


def test_the_trial_is_in_the_document_with_every_rung(record: RunRecord) -> None:
    document = run_document(record)
    trial = document["trial"]
    assert (trial["winner"], trial["strategy"], trial["budget_seconds"]) == ("fonts-resnet10t", "lp-ft", 60)
    assert trial["seconds"] == pytest.approx(sum(rung["seconds"] for rung in trial["rungs"]))
    assert [rung["candidate"] for rung in trial["rungs"] if rung["survived"] and rung["rung"] == 2] == [
        trial["winner"]
    ]
    assert document["selection"]["achieved_measure"] == record.ranking.achieved_measure
    without = run_document(record.model_copy(update={"halving": None}))
    check(without, RUN_SCHEMA)
    assert without["trial"] is None


def test_the_ranking_document_is_the_same_list_and_says_why_a_candidate_was_skipped(
    record: RunRecord,
) -> None:
    document = ranking_document(record.ranking)
    check(document, RANKING_SCHEMA)
    assert document["ranking"] == run_document(record)["ranking"]
    first, *_, last = document["ranking"]
    assert {"candidate", "rank", "scores", "params", "skipped"} <= set(first)
    assert (first["candidate"], first["rank"], first["skipped"]) == ("fonts-resnet10t", 1, None)
    assert last["rank"] is None and "weights do not fit" in last["skipped"]


def test_values_that_are_not_finite_become_null(record: RunRecord) -> None:
    adaptation = record.adaptation
    assert adaptation is not None
    failed = Adapted(
        strategy="x", validator_score=float("nan"), source_validation_accuracy=float("inf"), failed="diverged"
    )
    changed = record.model_copy(update={"adaptation": adaptation.model_copy(update={"tried": (failed,)})})
    check(run_document(changed), RUN_SCHEMA)
    entry = Ranked(candidate="a", rank=1, scores={"logme": float("-inf")})
    check(ranking_document(Ranking(entries=(entry,), scorers=("logme",), images=1)), RANKING_SCHEMA)


def test_the_schema_refuses_what_it_must(record: RunRecord) -> None:
    validator = jsonschema.Draft202012Validator(RUN_SCHEMA)
    for change in ({"onnx": None}, {"new": 1}, {"metrics": {}}, {"cached": "load"}):
        assert not validator.is_valid(run_document(record) | change), change
    short = {key: value for key, value in run_document(record).items() if key != "parity"}
    assert not validator.is_valid(short)

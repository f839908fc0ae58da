"""The JSON that `tlcore run --json` and `tlcore rank --json` print, and its schema.

The documents are a promise to scripts: fields are added, never renamed. Values that are not finite become null,
since JSON has no others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from tlcore.evaluation.comparison import transfer_sentence
from tlcore.report.outputs import outputs_document
from tlcore.report.search import search_document
from tlcore.values import (
    AccuracyEstimates,
    Adaptation,
    Adapted,
    Calibration,
    ClassRow,
    Comparison,
    DomainGap,
    DomainRow,
    Halving,
    Interval,
    LabelErrors,
    Metrics,
    NumberMetrics,
    Parity,
    Ranked,
    Ranking,
    RunRecord,
    TagMetrics,
    Trial,
)

__all__ = ["RANKING_SCHEMA", "RUN_SCHEMA", "ranking_document", "run_document"]

RUN_SCHEMA: dict[str, Any] = json.loads(files("tlcore.report").joinpath("run.schema.json").read_text("utf-8"))
"""JSON Schema (2020-12) of `run_document`."""
_RANKING = ("ranking", "selection")
RANKING_SCHEMA: dict[str, Any] = {
    "$schema": RUN_SCHEMA["$schema"],
    "title": "tlcore rank --json",
    "type": "object",
    "required": [*_RANKING],
    "properties": {name: RUN_SCHEMA["properties"][name] for name in _RANKING},
    "additionalProperties": False,
    "$defs": RUN_SCHEMA["$defs"],
}
"""JSON Schema (2020-12) of `ranking_document`."""


def run_document(record: RunRecord) -> dict[str, Any]:
    """The whole result of a run as plain JSON values; shares are in [0, 1], times in seconds."""
    return {
        "run_id": record.run_id,
        "name": record.name,
        "created": record.created,
        "chosen": {
            "candidate": record.chosen.candidate,
            "strategy": record.chosen.strategy,
            "options": dict(record.chosen.options),
            "kept_start": record.chosen.kept_start,
        },
        **ranking_document(record.ranking),
        "trial": None if record.halving is None else _trial(record.halving),
        "searches": [search_document(search) for search in record.searches],
        "decisions": list(record.decisions),
        "metrics": _metrics(record.metrics),
        "baselines": {entry.baseline: _number(entry.accuracy) for entry in record.baselines},
        "comparisons": {entry.baseline: _comparison(entry) for entry in record.baselines},
        "transfer": transfer_sentence(record.baselines, record.chosen.strategy),
        "trained": [_trained(entry) for entry in record.trials],
        "calibration": None if record.calibration is None else _calibration(record.calibration),
        "label_errors": None if record.label_errors is None else _label_errors(record.label_errors),
        "domains": {row.domain: _domain(row) for row in record.domains},
        "adaptation": None if record.adaptation is None else _adaptation(record.adaptation),
        "parity": _parity(record.parity),
        "onnx": record.onnx,
        "card": record.card,
        "seconds": {stage: _number(spent) for stage, spent in record.seconds.items()},
        "cached": list(record.cached),
        "warnings": list(dict.fromkeys((*record.warnings, *record.metrics.warnings))),
    }


def ranking_document(ranking: Ranking) -> dict[str, Any]:
    """Candidates from best to worst; those that took no part have rank null and say why in "skipped"."""
    return {
        "ranking": [_ranked(entry) for entry in ranking.entries],
        "selection": {
            "shortlist": list(ranking.shortlist),
            "scorers": list(ranking.scorers),
            "images": ranking.images,
            "prior": ranking.prior,
            "achieved_measure": ranking.achieved_measure,
        },
    }


def _ranked(entry: Ranked) -> dict[str, Any]:
    return {
        "candidate": entry.candidate,
        "rank": entry.rank,
        "rank_interval": None if entry.rank_interval is None else _interval(entry.rank_interval),
        "tied_with_best": entry.tied_with_best,
        "panel": _number(entry.panel),
        "scores": {name: _number(value) for name, value in entry.scores.items()},
        "spread": {name: _interval(value) for name, value in entry.spread.items()},
        "draws": {name: [_number(value) for value in values] for name, values in entry.draws.items()},
        "draw_scale": {name: _number(value) for name, value in entry.draw_scale.items()},
        "params": entry.params,
        "gmacs": _number(entry.gmacs),
        "prior": _number(entry.prior),
        "prior_rank": entry.prior_rank,
        "images_per_second": _number(entry.images_per_second),
        "engine": entry.engine,
        "latency_ms": _number(entry.latency_ms),
        "onnx_bytes": entry.onnx_bytes,
        "licence": entry.licence,
        "achieved": _number(entry.achieved),
        "notes": list(entry.notes),
        "skipped": entry.skipped,
    }


def _trial(trial: Halving) -> dict[str, Any]:
    return {
        "strategy": trial.strategy,
        "shortlist": list(trial.shortlist),
        "winner": trial.winner,
        "reason": trial.reason,
        "budget_seconds": _number(trial.budget_seconds),
        "seconds": _number(trial.seconds),
        "rungs": [
            {
                "candidate": rung.candidate,
                "rung": rung.rung,
                "epochs": rung.epochs,
                "validation": _number(rung.validation),
                "validation_ci": None if rung.validation_ci is None else _interval(rung.validation_ci),
                "images": rung.images,
                "loss": _number(rung.loss),
                "seconds": _number(rung.seconds),
                "survived": rung.survived,
                "failed": rung.failed,
            }
            for rung in trial.rungs
        ],
    }


def _metrics(metrics: Metrics | NumberMetrics | TagMetrics) -> dict[str, Any]:
    if not isinstance(metrics, Metrics):
        return outputs_document(metrics)
    document: dict[str, Any] = {"images": metrics.images}
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error"):
        document[name] = _number(getattr(metrics, name))
        document[f"{name}_ci"] = _interval(getattr(metrics, f"{name}_ci"))
    document["per_class"] = {name: _number(recall) for name, recall in metrics.per_class.items()}
    document["log_loss"] = None if metrics.reliability is None else _number(metrics.reliability.log_loss)
    document["classes"] = {row.name: _class(row) for row in metrics.classes}
    document["top_losses"] = [
        {
            "image": entry.uri,
            "label": entry.label,
            "predicted": entry.predicted,
            "probability": _number(entry.probability),
            "label_probability": _number(entry.label_probability),
            "loss": _number(entry.loss),
        }
        for entry in metrics.top_losses
    ]
    return document


def _class(row: ClassRow) -> dict[str, Any]:
    return {
        "images": row.images,
        "predicted": row.predicted,
        "recall": _number(row.recall),
        "recall_ci": _interval(row.recall_ci),
        "precision": _number(row.precision),
        "precision_ci": None if row.precision_ci is None else _interval(row.precision_ci),
        "f1": _number(row.f1),
    }


def _domain(row: DomainRow) -> dict[str, Any]:
    return {
        "images": row.images,
        "accuracy": _number(row.accuracy),
        "accuracy_ci": _interval(row.accuracy_ci),
    }


def _trained(entry: Trial) -> dict[str, Any]:
    return {
        "candidate": entry.candidate,
        "strategy": entry.strategy,
        "options": dict(entry.options),
        "kept_start": entry.kept_start,
        "validation": _number(entry.validation),
        "validation_ci": None if entry.validation_ci is None else _interval(entry.validation_ci),
        "validated_on": entry.validated_on,
        "test": _number(entry.test),
        "test_ci": None if entry.test_ci is None else _interval(entry.test_ci),
        "seconds": _number(entry.seconds),
        "notes": list(entry.notes),
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "temperature": _number(calibration.temperature),
        "images": calibration.images,
        "nll_before": _number(calibration.nll_before),
        "nll_after": _number(calibration.nll_after),
        "error_before": _number(calibration.error_before),
        "error_after": _number(calibration.error_after),
        "kept": calibration.kept,
        "why": calibration.why,
    }


def _label_errors(found: LabelErrors) -> dict[str, Any]:
    return {
        "images": found.images,
        "found_by": found.found_by,
        "agreement": _number(found.agreement),
        "error_share": _number(found.error_share),
        "error_share_ci": None if found.error_share_ci is None else _interval(found.error_share_ci),
        "found": found.found,
        "suspects": [
            {
                "image": suspect.uri,
                "label": suspect.label,
                "suggested": suspect.suggested,
                "self_confidence": _number(suspect.self_confidence),
                "suggested_probability": _number(suspect.suggested_probability),
            }
            for suspect in found.suspects
        ],
        "notes": list(found.notes),
    }


def _comparison(entry: Comparison) -> dict[str, Any]:
    return {
        "accuracy": _number(entry.accuracy),
        "difference": _number(entry.difference),
        "difference_ci": _interval(entry.difference_ci),
        "better": entry.better,
    }


def _adaptation(adaptation: Adaptation) -> dict[str, Any]:
    return {
        "kept": adaptation.kept,
        "reason": adaptation.reason,
        "validator": adaptation.validator,
        "target_images": adaptation.target_images,
        "gap": None if adaptation.gap is None else _gap(adaptation.gap),
        "source_only": _adapted(adaptation.source_only),
        "tried": [_adapted(entry) for entry in adaptation.tried],
    }


def _adapted(entry: Adapted) -> dict[str, Any]:
    return {
        "strategy": entry.strategy,
        "validator_score": _number(entry.validator_score),
        "validators": _numbers(entry.validators),
        "source_validation_accuracy": _number(entry.source_validation_accuracy),
        "accuracy": _number(entry.accuracy),
        "accuracy_ci": None if entry.accuracy_ci is None else _interval(entry.accuracy_ci),
        "accuracy_last": _number(entry.accuracy_last),
        "accuracy_oracle": _number(entry.accuracy_oracle),
        "estimates": None if entry.estimates is None else _estimates(entry.estimates),
        "predicted_classes": entry.predicted_classes,
        "top_share": _number(entry.top_share),
        "cluster_agreement": _number(entry.cluster_agreement),
        "target_only": entry.target_only,
        "seconds": _number(entry.seconds),
        "stopped": entry.stopped,
        "verdict": entry.verdict,
        "refused": entry.refused,
        "failed": entry.failed,
    }


def _estimates(estimates: AccuracyEstimates) -> dict[str, Any]:
    return {
        "atc_confidence": _number(estimates.atc_confidence),
        "atc_entropy": _number(estimates.atc_entropy),
        "difference_of_confidences": _number(estimates.difference_of_confidences),
        "low": _number(estimates.low),
        "high": _number(estimates.high),
        "temperature": _number(estimates.temperature),
    }


def _gap(gap: DomainGap) -> dict[str, Any]:
    return {
        "label_sets": gap.label_sets,
        "declared": gap.declared,
        "missing_classes": list(gap.missing_classes),
        "new_classes": list(gap.new_classes),
        "a_distance": _numbers(gap.a_distance),
        "domain_error": _number(gap.domain_error),
        "coral": _number(gap.coral),
        "mmd": _number(gap.mmd),
        "mmd_p": _number(gap.mmd_p),
        "source_shares": _numbers(gap.source_shares),
        "predicted_shares": _numbers(gap.predicted_shares),
        "label_shares": _numbers(gap.label_shares),
        "duplicates": gap.duplicates,
        "duplicate_examples": list(gap.duplicate_examples),
        "source_examples": list(gap.source_examples),
        "target_examples": list(gap.target_examples),
        "notes": list(gap.notes),
    }


def _parity(parity: Parity) -> dict[str, Any]:
    return {
        "passed": parity.passed,
        "images": parity.images,
        "max_probability_difference": _number(parity.max_probability_difference),
        "tolerance": _number(parity.tolerance),
        "top1_agreement": _number(parity.top1_agreement),
        "ties": parity.ties,
        "accuracy_model": _number(parity.accuracy_model),
        "accuracy_file": _number(parity.accuracy_file),
    }


def _interval(interval: Interval) -> list[float | None]:
    return [_number(interval.low), _number(interval.high)]


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

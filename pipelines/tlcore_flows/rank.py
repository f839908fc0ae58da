"""The first half of the chain: from images and model sources to a ranking.

candidates -> constraints -> load -> check -> pixels -> features and score per candidate -> rank
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from tlcore.config import RunConfig
from tlcore.errors import PluginError, RetryableError, UserError
from tlcore.selection.constraints import constrain, none_left, over_latency, with_latencies
from tlcore.selection.ranking import left_out
from tlcore.stages.values import CandidateList, CheckedData, DecodedImages, FeatureFiles
from tlcore.store import Store
from tlcore.values import Candidate, Json, Ranking, Ref
from tlcore_flows import observe
from tlcore_flows.opened import open_store
from tlcore_flows.wiring import Wiring, as_choice, source_of

__all__ = ["RankedModels", "decode", "rank", "rank_models"]


@dataclass(frozen=True)
class RankedModels:
    """What the first half leaves to the second; candidates and features by candidate name."""

    data: Ref
    checked: CheckedData
    candidates: dict[str, Candidate]
    features: dict[str, Ref]
    ranking: Ranking


def rank_models(run: Wiring) -> RankedModels:
    """Submit the stages up to the ranking. One candidate that fails is reported and does not end the run."""
    config = run.config
    kept, removed = _candidates(run)
    data, checked = _data(run)
    measured = _latencies(run, kept, removed)
    slow = {candidate.name for candidate, _ in removed}
    usable = {candidate.name: candidate for candidate in kept if candidate.name not in slow}
    pixels = decode(run, data, usable.values(), purpose="scoring")
    skipped = [left_out(candidate, reason) for candidate, reason in removed]
    features: dict[str, Ref] = {}
    scores: list[Ref] = []
    for name, candidate in usable.items():
        try:
            features[name] = _features(run, candidate, data, pixels[name])
            scores.append(_score(run, candidate, data, features[name]))
        except (UserError, PluginError, RetryableError) as error:
            features.pop(name, None)
            skipped.append(left_out(candidate, error.what))
            run.warnings.append(f"{name} took no part: {error.what}")
    ranked = run(
        "rank",
        inputs={"scores": tuple(scores)},
        options={
            "scorers": [choice.name for choice in config.selection.scorers],
            "images": max((run.store.read(ref, FeatureFiles).images for ref in features.values()), default=0),
            "left_out": [entry.model_dump(mode="json") for entry in skipped],
            "shortlist": config.selection.shortlist,
            "prior_source": Path(config.selection.results).name if config.selection.results else "",
        },
    )
    ranking = with_latencies(run.store.read(ranked, Ranking), measured)
    return RankedModels(data, checked, usable, features, ranking)


def _candidates(run: Wiring) -> tuple[list[Candidate], list[tuple[Candidate, str]]]:
    """The candidates that may take part by what is known of them, and the others with the reason."""
    config = run.config
    found = run(
        "candidates",
        strategies={
            f"model-{i}": as_choice("model-source", choice) for i, choice in enumerate(config.models)
        },
        options={"results": config.selection.results},
    )
    kept, removed = constrain(run.store.read(found, CandidateList).entries, config.selection)
    if not kept:
        raise none_left(removed, config.selection)
    return kept, removed


def _latencies(run: Wiring, kept: list[Candidate], removed: list[tuple[Candidate, str]]) -> dict[str, float]:
    """Milliseconds by candidate where a limit is set; those over it, and those that cannot be measured, join `removed`."""
    limits = run.config.selection
    if limits.max_latency_ms is None:
        return {}
    from tlcore.models.latency import Latency, processor

    measured: dict[str, float] = {}
    slow: list[tuple[Candidate, str]] = []
    for candidate in kept:
        try:
            ref = run(
                "latency",
                candidate.name,
                options={
                    "candidate": candidate.recipe(),
                    "threads": run.config.threads,
                    "processor": processor(),
                },
                strategies={"source": source_of(candidate)},
            )
        except (UserError, PluginError) as error:
            slow.append((candidate, error.what))
            continue
        measured[candidate.name] = run.store.read(ref, Latency).milliseconds
        reason = over_latency(measured[candidate.name], limits)
        if reason:
            slow.append((candidate, reason))
    removed += slow
    if len(slow) == len(kept):
        raise none_left(removed, limits)
    return measured


def _data(run: Wiring) -> tuple[Ref, CheckedData]:
    data = run.config.data
    sources = {"source": as_choice("data-source", data.source)}
    if data.target is not None:
        sources["target"] = as_choice("data-source", data.target)
    checked = run(
        "check",
        inputs={"data": run("load", strategies=sources)},
        options={
            "max_pixels": data.max_pixels,
            "max_bad_share": data.max_bad_share,
            "validation": data.validation,
            "test": data.test,
        },
        strategies={"check": as_choice("data-check", data.check)},
    )
    return checked, run.store.read(checked, CheckedData)


def decode(
    run: Wiring, data: Ref, candidates: Iterable[Candidate], *, purpose: Literal["exact", "scoring"]
) -> dict[str, Ref]:
    """One decode pass for all these candidates; the pixels' ref by candidate name.

    "scoring": only the images that scores look at, fast and nearly exact. "exact": all images by the very rule,
    for candidates that are trained.
    """
    rule_of = {c.name: c.preprocess.decoding() for c in candidates if c.preprocess is not None}
    rules = {rule.decode_key(): rule.model_dump(mode="json") for rule in rule_of.values()}
    options: dict[str, Json] = {
        "rules": [rules[key] for key in sorted(rules)],
        "max_pixels": run.config.data.max_pixels,
        "purpose": purpose,
    }
    if purpose == "scoring":
        options["max_images"] = run.config.selection.max_images
    decoded = run("decode", purpose, inputs={"data": data}, options=options)
    refs = run.store.read(decoded, DecodedImages).pixels
    return {name: refs[rule.decode_key()] for name, rule in rule_of.items()}


def _features(run: Wiring, candidate: Candidate, data: Ref, pixels: Ref) -> Ref:
    document: Json = candidate.recipe()
    return run(
        "features",
        candidate.name,
        inputs={"data": data, "pixels": pixels},
        options={"candidate": document, "max_images": run.config.selection.max_images},
        strategies={"source": source_of(candidate)},
    )


def _score(run: Wiring, candidate: Candidate, data: Ref, features: Ref) -> Ref:
    selection = run.config.selection
    return run(
        "score",
        candidate.name,
        inputs={"data": data, "features": features},
        options={"candidate": candidate.model_dump(mode="json"), "replicates": selection.replicates},
        strategies={f"scorer-{i}": as_choice("scorer", choice) for i, choice in enumerate(selection.scorers)},
    )


@flow(name="rank", flow_run_name="rank-{config.name}", persist_result=False, result_serializer="json")
def rank(config: RunConfig, store: str | None = None) -> dict[str, Any]:
    """Check the data and rank the source models, without training any.

    Args:
        config: everything about the run; fine-tuning, adaptation and export are not looked at.
        store: folder of the run store; default $TLCORE_HOME, else .tlcore.

    Returns:
        The Ranking as JSON.
    """
    opened = open_store(Store.open(store).root)
    with observe.run("rank", config.name, opened.root):
        ranking: dict[str, Any] = rank_models(Wiring(config, opened)).ranking.model_dump(mode="json")
        return ranking

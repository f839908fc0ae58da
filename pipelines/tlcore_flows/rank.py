"""The first half of the chain: from images and model sources to a ranking.

candidates -> constraints -> load -> check -> pixels -> features per candidate and shard -> merge -> score -> rank

Features and scores of several candidates and shards do not wait for each other: `compute.runner` says where
they are worked on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from tlcore.config import RunConfig
from tlcore.errors import PluginError, TlcoreError, UserError
from tlcore.evaluation.label_sets import contract
from tlcore.features.shards import merge_groups, shard_bounds
from tlcore.selection.constraints import constrain, none_left, over_latency, teachers, with_latencies
from tlcore.selection.ranking import left_out
from tlcore.stages.base import StageJob
from tlcore.stages.values import (
    FLOAT32_ENGINES,
    CandidateList,
    CheckedData,
    DecodedImages,
    FeatureFiles,
    PixelFiles,
)
from tlcore.store import Store
from tlcore.values import TARGET, Candidate, Json, Ranked, Ranking, Ref
from tlcore_flows import observe, recall, runners
from tlcore_flows.opened import open_registry, open_store
from tlcore_flows.wiring import Wiring, as_choice, source_of

__all__ = ["RankedModels", "decode", "rank", "rank_models"]


@dataclass(frozen=True)
class RankedModels:
    """What the first half leaves to the second; candidates and features by candidate name.

    `failed`: who fell out while features or scores were made; another time it may not (lack of memory, a lost worker).
    `teacher`: the first by rank where those over the limits take part, which may teach but never be chosen; None where
    nobody asked.
    """

    data: Ref
    checked: CheckedData
    candidates: dict[str, Candidate]
    features: dict[str, Ref]
    ranking: Ranking
    failed: tuple[str, ...]
    teacher: str | None = None


def rank_models(
    run: Wiring,
    *,
    teaching: bool = False,
    allow: Callable[[CheckedData], None] = lambda data: None,
    able: Callable[[Sequence[Candidate]], None] = lambda candidates: None,
    admit: Callable[[Candidate], str | None] = lambda candidate: None,
) -> RankedModels:
    """Submit the stages up to the ranking. One candidate that fails is reported and does not end the run.

    teaching: some strategy learns from a teacher, so that candidates over the limits of cost are ranked too, apart.
    allow: asked as soon as the data are checked; raises where the run would end later.
    able: asked of all candidates, before any work; raises where the run would end later.
    admit: asked of each candidate then: why it takes no part, or None.
    """
    config = run.config
    runners.check(config, run.store)
    kept, removed = _candidates(run)
    able(kept)
    reasons = {candidate.name: admit(candidate) for candidate in kept}
    refused = [left_out(one, str(reasons[one.name])) for one in kept if reasons[one.name]]
    kept = [candidate for candidate in kept if not reasons[candidate.name]]
    data, checked = _data(run)
    allow(checked)
    measured = _latencies(run, kept, removed)
    slow = {candidate.name for candidate, _ in removed}
    usable = {candidate.name: candidate for candidate in kept if candidate.name not in slow}
    may_teach = {c.name: c for c in teachers(removed, config.selection)} if teaching else {}
    known = usable | may_teach
    pixels = decode(run, data, known.values(), purpose="scoring")
    skipped = [
        left_out(one, f"teaches only: {reason}" if one.name in may_teach else reason)
        for one, reason in removed
    ]
    skipped += refused
    features, scores, failed = _scored(run, data, known, pixels)
    for name, reason in failed.items():
        if name in usable:
            skipped.append(left_out(usable[name], reason))
        run.warnings.append(f"{name} took no part: {reason}")
    best = _ranked(run, features, scores, [], "teachers").best if may_teach else None
    ranking = _ranked(run, features, {n: ref for n, ref in scores.items() if n in usable}, skipped)
    ranking = with_latencies(ranking, measured)
    if teaching and best is None:
        best = ranking.best
    return RankedModels(data, checked, known, features, ranking, tuple(failed), best)


def _ranked(
    run: Wiring,
    features: Mapping[str, Ref],
    scores: Mapping[str, Ref],
    skipped: Sequence[Ranked],
    subject: str = "",
) -> Ranking:
    """The candidates that have scores in their order, and then those that were left out."""
    config = run.config
    ref = run(
        "rank",
        subject,
        inputs={"scores": tuple(scores.values())},
        options={
            "scorers": [choice.name for choice in config.selection.scorers],
            "images": max(
                (run.store.read(features[name], FeatureFiles).images for name in scores), default=0
            ),
            "left_out": [entry.model_dump(mode="json") for entry in skipped],
            "shortlist": config.selection.shortlist,
            "prior_source": Path(config.selection.results).name if config.selection.results else "",
        },
    )
    return run.store.read(ref, Ranking)


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
        inputs={"data": run("load", options=_domains(run.config), strategies=sources)},
        options={
            "max_pixels": data.max_pixels,
            "max_bad_share": data.max_bad_share,
            "validation": data.validation,
            "test": data.test,
        },
        strategies={"check": as_choice("data-check", data.check)},
    )
    found = run.store.read(checked, CheckedData)
    if found.has_target:
        # only to refuse here, in seconds, what would be refused after the training
        contract(run.config.adapt.label_sets, data.target_classes, found.classes)
    return checked, found


def _domains(config: RunConfig) -> dict[str, Json]:
    """How the table's domains are read; nothing where nothing was said."""
    options: dict[str, Json] = {}
    if config.data.target_domain != TARGET:
        options["target_domain"] = config.data.target_domain
    if config.adapt.label_sets in {"open", "open-partial"} or config.data.target_classes is not None:
        options["new_classes"] = True
    return options


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


def _scored(
    run: Wiring, data: Ref, usable: Mapping[str, Candidate], pixels: Mapping[str, Ref]
) -> tuple[dict[str, Ref], dict[str, Ref], dict[str, str]]:
    """Features and score by candidate, and the reason for each candidate that failed at either."""
    features: dict[str, Ref] = {}
    scores: dict[str, Ref] = {}
    failed: dict[str, str] = {}
    with runners.fleet(run.config, run.store) as fleet:
        several = replace(run, fleet=fleet)  # what it notes, it notes in the same places
        # Side by side all at once; otherwise one candidate is finished before the next begins.
        for names in [list(usable)] if fleet is not None else [[name] for name in usable]:
            parts = _each(several, {n: _shards(run, usable[n], data, pixels[n]) for n in names}, failed)
            while any(len(refs) > 1 for refs in parts.values()):
                parts = _each(several, {n: _merges(run, n, refs) for n, refs in parts.items()}, failed)
            jobs = {n: [_score(run, usable[n], data, refs[0])] for n, refs in parts.items()}
            found = _each(several, jobs, failed)
            scores |= {name: refs[0] for name, refs in found.items()}
            features |= {name: parts[name][0] for name in found}
    return features, scores, failed


def _each(
    run: Wiring, jobs: Mapping[str, Sequence[StageJob | Ref]], failed: dict[str, str]
) -> dict[str, list[Ref]]:
    """Run each candidate's jobs; a candidate of which one fails joins `failed` and leaves. A Ref is done already."""
    flat = [(name, job) for name, several in jobs.items() for job in several]
    done = iter(run.each([job for _, job in flat if isinstance(job, StageJob)]))
    found: dict[str, list[Ref]] = {name: [] for name in jobs}
    for name, job in flat:
        result = job if isinstance(job, Ref) else next(done)
        if isinstance(result, TlcoreError):
            failed.setdefault(name, result.what)
            found.pop(name, None)
        elif name in found:
            found[name].append(result)
    return found


def _shards(run: Wiring, candidate: Candidate, data: Ref, pixels: Ref) -> list[StageJob]:
    images = run.store.read(pixels, PixelFiles).images
    count = len(shard_bounds(images, run.config.compute.shards)) if images else 1
    options: dict[str, Json] = {
        "candidate": candidate.recipe(),
        "max_images": run.config.selection.max_images,
    }
    options |= _engine(run.config)
    return [
        run.job(
            "features",
            candidate.name if count == 1 else f"{candidate.name}-{index + 1}of{count}",
            inputs={"data": data, "pixels": pixels},
            # Without shards the address is what it always was.
            options=options if count == 1 else {**options, "shard": [index, count]},
            strategies={"source": source_of(candidate)},
        )
        for index in range(count)
    ]


def _engine(config: RunConfig) -> dict[str, Json]:
    """What decides about the engine, part of the features' address: machines that share a store and choose
    differently never find each other's features, and all workers of one run choose as this machine does."""
    engine = config.selection.engine
    if engine in FLOAT32_ENGINES:
        return {"engine": engine}
    from tlcore.features.engines.choice import AUTO, missing
    from tlcore.features.engines.hardware import Hardware

    here = Hardware.of(config.device)
    if engine == AUTO:
        return {"hardware": here.facts()}
    if missing(engine, here):
        return {"engine": engine}  # for a worker that has what this machine lacks; it says if it has not
    return {"engine": engine, "hardware": here.facts()}


def _merges(run: Wiring, name: str, refs: Sequence[Ref]) -> list[StageJob | Ref]:
    if len(refs) == 1:
        return list(refs)
    return [
        run.job(
            "merge", f"{name}-{first + 1}to{last}of{len(refs)}", inputs={"parts": tuple(refs[first:last])}
        )
        for first, last in merge_groups(len(refs))
    ]


def _score(run: Wiring, candidate: Candidate, data: Ref, features: Ref) -> StageJob:
    selection = run.config.selection
    return run.job(
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
        key = recall.address(config, open_registry(opened.root), opened.root)
        made = rank_models(Wiring(config, opened))
        if not made.failed:
            recall.keep(opened.root, key, made.ranking)
        ranking: dict[str, Any] = made.ranking.model_dump(mode="json")
        return ranking

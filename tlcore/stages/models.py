"""Stages from model sources to a ranking."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from tlcore.errors import PluginError, UserError
from tlcore.protocols import Evidence, ModelSource, Scorer
from tlcore.registry import Registry
from tlcore.selection.constraints import by_reason
from tlcore.stages.base import Progress, StageContext, StageJob
from tlcore.stages.tables import load_table, pixels_of_rows, preprocess_of, rows_of, scoring_rows
from tlcore.stages.values import CandidateList, CheckedData, FeatureFiles
from tlcore.store import Store, Work, content_key
from tlcore.values import Candidate, Ranked, Ranking

__all__ = ["candidates", "features", "rank_candidates", "score"]


def candidates(
    store: Store, registry: Registry, job: StageJob, progress: Progress
) -> tuple[str, Callable[[Work], None]]:
    """List the candidates of all model sources, in order. One candidate named twice counts once.

    Options: results, the path of a result table whose accuracies become the static prior, or None.
    """
    from tlcore.models.listing import list_candidates
    from tlcore.models.results import read_results

    def found() -> Iterator[Candidate]:
        for role, choice in job.strategies.items():
            progress(0, 0, f"listing {choice.name}")
            source = registry.build(choice.kind, choice.name, choice.options, where=f"[models] {role}")
            yield from cast(ModelSource, source).candidates()

    table = job.options.get("results")
    entries = list_candidates(found(), read_results(Path(table).expanduser()) if table else {})
    if not any(candidate.skipped is None for candidate in entries):
        reasons = by_reason((candidate, candidate.skipped or "") for candidate in entries)
        raise UserError(
            f"no source model can take part: {reasons or 'none was found'}",
            where="[models]",
            hint="name other models with --models",
        )
    key = content_key(
        {"stage": "candidates", "entries": [candidate.model_dump(mode="json") for candidate in entries]}
    )
    return key, lambda work: work.write(CandidateList(entries=entries))


def features(context: StageContext) -> FeatureFiles:
    """Features of the labelled training images by one candidate.

    Options: candidate, max_images, engine, shard, and hardware, the facts that the engine is chosen by (default: this
    machine's).

    With the option shard, [number, shards]: of one shard of these images, and beside them the moments of its folds.
    """
    from tlcore.features.extract import extract
    from tlcore.features.files import save_features
    from tlcore.stages.shards import save_folds, shard_of

    candidate = Candidate.model_validate(context.option("candidate"))
    preprocess = preprocess_of(candidate)
    dataset = load_table(context.folder("data"), context.read("data", CheckedData))
    rows = scoring_rows(dataset, context.option("max_images"), context.job.seed)
    complete = len(rows) == len(rows_of(dataset, "train", labelled=True))
    pixels, places = pixels_of_rows(context, preprocess, rows)
    part = shard_of(context, len(rows))
    try:
        network = cast(ModelSource, context.build("source")).build(candidate)
        extracted = extract(
            network, pixels, preprocess, rows=places[part], head=True, name=candidate.name, device=context.job.device,
            engine=context.job.options.get("engine", "auto"), planned=len(rows),
            planned_for=context.job.options.get("hardware"),
            on_progress=lambda done, total: context.progress(done, total, "features"),
        )  # fmt: skip
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        # Whatever a network makes of this input is about the network: it is left out, the run goes on.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PluginError(f"the network failed on its input: {reason}", where=candidate.name) from error
    own = rows[part]
    save_features(context.work.folder, extracted, dataset.table["sample_id"].gather(own).to_list())
    if len(own) < len(rows) and dataset.task == "classification":
        labels = np.asarray(dataset.labels(), dtype=np.int64)[rows]
        save_folds(context.work.folder, extracted, labels, part, len(dataset.classes))
    return FeatureFiles(
        images=len(own), dim=extracted.features.shape[1], complete=complete,
        images_per_second=round(len(own) / max(extracted.seconds, 1e-9), 2), seconds=extracted.seconds,
        source_head=extracted.probabilities is not None, engine=extracted.engine, engine_note=extracted.note,
    )  # fmt: skip


def score(context: StageContext) -> Ranked:
    """All scores of one candidate, and the remarks of its scorers among its notes.

    Options: candidate, replicates. Strategies: any role is a scorer.
    """
    from tlcore.features.folds import fold_moments
    from tlcore.features.moments import Moments
    from tlcore.selection.number_evidence import number_evidence, parted
    from tlcore.selection.ranking import score_candidate
    from tlcore.stages.shards import engine_notes, joined, stored_folds, stored_parts

    candidate = Candidate.model_validate(context.option("candidate"))
    dataset = load_table(context.folder("data"), context.read("data", CheckedData))
    parts = stored_parts(context, "features")
    place_of = {name: place for place, name in enumerate(dataset.table["sample_id"].to_list())}
    targets = dataset.targets()[[place_of[name] for part in parts for name in part.sample_ids]]
    context.progress(0, 0, "scoring")
    scorers = [cast(Scorer, context.build(role)) for role in context.job.strategies]
    scorers, without = parted(scorers, dataset.task)
    stored = functools.cache(lambda: joined(parts))
    if dataset.task == "classification":
        folds = stored_folds(context, "features")  # shards brought theirs
        if not folds:
            images = (stored().features, targets, len(dataset.classes), stored().probabilities)
            # One pass over the features: the folds, where a scorer wants them, add up to the whole.
            wanted = any("folds" in scorer.card.traits for scorer in scorers)
            folds = fold_moments(*images) if wanted else (Moments.of(*images),)
        evidence = Evidence(
            moments=Moments.merge(folds), labels=targets, folds=folds if len(folds) > 1 else (),
            seed=context.job.seed, features=lambda: stored().features,
            source_probabilities=lambda: stored().probabilities,
        )  # fmt: skip
    else:
        evidence = number_evidence(stored().features, targets, dataset.task, seed=context.job.seed)
    files = context.read("features", FeatureFiles)
    entry = score_candidate(
        scorers, evidence, candidate, replicates=context.option("replicates"),
        images_per_second=files.images_per_second,
    )  # fmt: skip
    if not scorers:
        entry = entry.model_copy(update={"skipped": f"{without}; use logme or ridge-cv (--scorer)"})
    notes = (*entry.notes, *((without,) if without else ()), *engine_notes(files))
    return entry.model_copy(update={"notes": notes, "engine": files.engine})


def rank_candidates(context: StageContext) -> Ranking:
    """Order the scored candidates.

    Options: scorers (names), images, left_out (Ranked documents of the others), shortlist (candidates on it at
    most), prior_source (where published accuracies come from, for people; "" for nowhere).
    """
    from tlcore.selection.ranking import rank

    entries = [context.store.read(ref, Ranked) for ref in context.refs("scores")]
    entries += [Ranked.model_validate(document) for document in context.option("left_out")]
    return rank(
        entries, scorers=context.option("scorers"), images=context.option("images"),
        shortlist=context.option("shortlist"), prior_source=context.option("prior_source"),
    )  # fmt: skip

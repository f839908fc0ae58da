"""The main job as a Prefect flow: wiring only. The work is in `tlcore.stages`.

rank (see there) -> short trainings of the shortlist (see trial) -> train with every strategy
  -> adapt (with target images) -> evaluate -> export -> parity -> card
"""

from __future__ import annotations

import platform
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from prefect import flow

from tlcore.config import RunConfig, StrategyChoice
from tlcore.report.measure import measure_of
from tlcore.selection.halving import achieved_in_trial
from tlcore.stages.choice import best_trained, kept_start
from tlcore.stages.runs import OpenRun, open_run
from tlcore.stages.values import Evaluation, Trained
from tlcore.store import Store
from tlcore.values import (
    Chosen,
    Exported,
    Halving,
    Metrics,
    Parity,
    Ranking,
    Ref,
    RunRecord,
    Trial,
)
from tlcore_flows import observe
from tlcore_flows.adapt import Places, adapt_model
from tlcore_flows.auto import resolved
from tlcore_flows.label_task import probe_of, refuse_unsound, suited
from tlcore_flows.needs import refuse_unable, teaching, untrainable
from tlcore_flows.opened import open_registry, open_store
from tlcore_flows.rank import RankedModels, decode, rank_models
from tlcore_flows.training import Base, Model, placed, train_all, try_train
from tlcore_flows.trial import Train, hold_trial
from tlcore_flows.wiring import Wiring, as_choice, source_of

__all__ = ["transfer"]

_PACKAGES = ("tlcore", "torch", "timm", "onnx", "onnxruntime", "prefect", "scikit-learn", "numpy")


# A flow that fails has its exception stored by Prefect, whatever persist_result says: as JSON, not pickled.
@flow(name="transfer", flow_run_name="transfer-{config.name}", persist_result=False, result_serializer="json")
def transfer(config: RunConfig, store: str | None = None) -> dict[str, Any]:
    """From images and source models to a proven ONNX file and a run card.

    Args:
        config: everything about the run.
        store: folder of the run store; default $TLCORE_HOME, else .tlcore.

    Returns:
        The RunRecord as JSON; it is also in the run's folder.

    Raises:
        TlcoreError: UserError for what the caller can mend; GateError when the file differs from the model.
    """
    root = open_store(Store.open(store).root)
    with open_run(root, config) as opened, observe.run(opened.run_id, config.name, root.root):
        run = Wiring(config, root, provenance={"run_id": opened.run_id})
        taught = teaching(open_registry(root.root), config)
        allow = partial(refuse_unsound, config, open_registry(root.root))
        able = partial(refuse_unable, config, open_registry(root.root))
        admit = partial(untrainable, config, open_registry(root.root))
        ranked = rank_models(run, teaching=taught, allow=allow, able=able, admit=admit)
        run = replace(run, config=suited(config, ranked.checked.task))
        return _finish(run, opened, _decoded(run, ranked)).model_dump(mode="json")


def _decoded(run: Wiring, ranked: RankedModels) -> Base:
    """Decode all images by the rules of the candidates that are trained, once for all of them."""
    names = dict.fromkeys(_finalists(ranked.ranking))
    if run.config.selection.verify:
        names |= dict.fromkeys(placed(ranked))
    if ranked.teacher is not None:
        names |= {ranked.teacher: None}
    pixels = decode(run, ranked.data, [ranked.candidates[name] for name in names], purpose="exact")
    return Base(**{field.name: getattr(ranked, field.name) for field in fields(ranked)}, pixels=pixels)


def _finalists(ranking: Ranking) -> tuple[str, ...]:
    return ranking.shortlist or (ranking.best,)


def _finish(run: Wiring, opened: OpenRun, base: Base) -> RunRecord:
    """The second half of the chain, from the ranking to the run's record."""
    config = run.config
    finalists = _finalists(base.ranking)
    trial = None
    if config.selection.trial == "halving" and len(finalists) > 1:
        trial = hold_trial(run, base, finalists, _short_training(run, base))
        finalists = (trial.winner,)
    models = train_all(run, base, finalists)
    model = best_trained([(m, m.trained) for m in models if m.competes])[0]
    name = model.candidate.name
    baselines = {}
    probe, scratch = StrategyChoice(name=probe_of(base.checked.task)), config.evaluation.scratch
    for label, choice in ((probe.name, probe), ("scratch", scratch)):
        trained = try_train(run, base, name, choice, pretrained=label != "scratch")
        if trained is not None:
            baselines[f"baseline:{label}"] = trained.ref
    adaptation, kept = None, None
    if base.checked.has_target and config.adapt.strategies:
        place = Places(base.data, base.pixels[name], model.ref)
        adaptation, kept = adapt_model(run, place, base.checked.report.classes, base.candidates[name])
    final = kept or model.ref
    if kept is not None:
        baselines["baseline:source-only"] = model.ref
    evaluation = _evaluate(run, base, name, final, baselines)
    tested = [_evaluate(run, base, f"{m.candidate.name}-{m.strategy}", m.ref, {}) for m in models]
    exporter = {
        "source": source_of(model.candidate),
        "exporter": as_choice("exporter", config.export.exporter),
    }
    calibrate = {"calibrate": config.export.calibrate}
    written = run(
        "export", name, inputs={"data": base.data, "model": final}, options=calibrate, strategies=exporter
    )
    proof = run(
        "parity",
        name,
        inputs={"data": base.data, "pixels": base.pixels[name], "model": final, "file": written},
        options={
            "tolerance": config.export.tolerance,
            "max_pixels": config.data.max_pixels,
            **calibrate,
        },
        strategies=exporter,
    )
    stored = run.store.read(written, Exported)
    exported = opened.promote(run.store.folder(written) / stored.path, stored)
    strategy = f"{model.strategy}+{adaptation.kept}" if adaptation and kept else model.strategy
    trials = tuple(_trained(run, m, found) for m, found in zip(models, tested, strict=True))
    made = trials[models.index(model)]
    start = "" if kept else made.kept_start
    record = RunRecord(
        run_id=opened.run_id,
        name=config.name,
        created=opened.state.created,
        data=base.checked.report,
        ranking=_with_achieved(run, base, models, tested, trial),
        chosen=Chosen(candidate=name, strategy=strategy, options=made.options, kept_start=start),
        metrics=evaluation.metrics,
        baselines=evaluation.baselines,
        trials=trials,
        halving=trial,
        adaptation=adaptation,
        parity=run.store.read(proof, Parity),
        exported=exported,
        onnx=str(opened.folder / exported.path),
        card=str(opened.folder / "card.html"),
        seconds=run.seconds,
        cached=run.cached,
        config=config.document(),
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        warnings=(*run.warnings, *evaluation.warnings),
        decisions=tuple(run.decisions),
        searches=tuple(m.trained.search for m in models if m.trained.search is not None),
        thumbnails=_pictured(evaluation),
        calibration=evaluation.calibration,
        uncalibrated=evaluation.uncalibrated,
        label_errors=evaluation.label_errors,
        domains=evaluation.domains,
    )
    drawn = run("card", options={"record": record.model_dump(mode="json")})
    return opened.complete(record, card=run.store.folder(drawn) / "card.html")


def _pictured(evaluation: Evaluation) -> dict[str, str]:
    """Where the images are that the card shows."""
    metrics, found = evaluation.metrics, evaluation.label_errors
    uris = {hard.sample_id: hard.uri for hard in metrics.top_losses} if isinstance(metrics, Metrics) else {}
    return uris | {suspect.sample_id: suspect.uri for suspect in (found.suspects if found else ())}


def _short_training(run: Wiring, base: Base) -> Train:
    def train(name: str, choice: StrategyChoice, subject: str) -> Trained | None:
        model = try_train(run, base, name, choice, short=True, subject=subject)
        return model.trained if model is not None else None

    return train


def _evaluate(run: Wiring, base: Base, what: str, model: Ref, baselines: dict[str, Ref]) -> Evaluation:
    ref = run(
        "evaluate",
        what,
        inputs={"data": base.data, "model": model, **baselines},
        options={
            "replicates": run.config.evaluation.replicates,
            "calibrate": run.config.export.calibrate,
        },
    )
    return run.store.read(ref, Evaluation)


def _with_achieved(
    run: Wiring, base: Base, models: list[Model], tested: list[Evaluation], trial: Halving | None
) -> Ranking:
    """Beside the scores what was achieved, by what networks are compared by: with `verify` on test images by `verify_with`,
    by which nothing is chosen; else on validation images in each candidate's last rung of the trial."""
    selection, ranking, name = run.config.selection, base.ranking, measure_of(base.checked.task).name
    if selection.verify:
        measure = f"test {name} after {selection.verify_with.name}"
        achieved = {
            model.candidate.name: found.metrics.score
            for model, found in zip(models, tested, strict=True)
            if model.choice == resolved(run, base, model.candidate.name, selection.verify_with)
        }
    elif trial is not None and trial.rungs:
        measure = achieved_in_trial(name)
        achieved = {rung.candidate: rung.validation for rung in trial.rungs if rung.validation is not None}
    else:
        return ranking
    entries = tuple(
        entry.model_copy(update={"achieved": achieved.get(entry.candidate)}) for entry in ranking.entries
    )
    return ranking.model_copy(update={"entries": entries, "achieved_measure": measure})


def _trained(run: Wiring, model: Model, tested: Evaluation) -> Trial:
    """A row of the record; where options were searched, with those that were found."""
    search = model.trained.search
    found = next((one.options for one in search.trials if one.number == search.best), {}) if search else {}
    options = model.choice.options | found
    strategy = open_registry(run.store.root).build("tuner", model.strategy, options)
    return Trial(
        candidate=model.candidate.name,
        strategy=model.strategy,
        validation=model.trained.validation,
        test=tested.metrics.score,
        test_ci=tested.metrics.score_ci,
        seconds=model.trained.seconds,
        history=model.trained.checkpoint.history,
        validation_ci=model.trained.validation_ci,
        validated_on=model.trained.validated_on,
        notes=model.trained.checkpoint.notes,
        options=strategy.model_dump(mode="json", exclude_defaults=True),
        kept_start=kept_start(model.trained),
    )

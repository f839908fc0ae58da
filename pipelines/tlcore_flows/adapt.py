"""From a source-only model to the adapter that may replace it: wiring only.

embed -> gap -> every sound adapter, side by side where there are workers -> the gate -> scatter
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from tlcore.config import StrategyChoice
from tlcore.errors import RetryableError, TlcoreError
from tlcore.evaluation.label_sets import Contract, contract, unsound
from tlcore.protocols import Adapter
from tlcore.stages.base import Choice, StageJob
from tlcore.stages.choice import judge_adapters
from tlcore.stages.values import AdaptedModel, SourceOnlyModel
from tlcore.values import Adaptation, Adapted, Candidate, DomainGap, Json, Ref, Scatter
from tlcore_flows import runners
from tlcore_flows.opened import open_registry
from tlcore_flows.wiring import Wiring, as_choice, source_of

__all__ = ["Places", "adapt_model"]


@dataclass(frozen=True)
class Places:
    """The results that adaptation works on: the data, the pixels by the model's rule, the source-only model."""

    data: Ref
    pixels: Ref
    model: Ref

    @property
    def inputs(self) -> dict[str, Ref]:
        return {"data": self.data, "pixels": self.pixels, "model": self.model}


def adapt_model(
    run: Wiring, places: Places, classes: Sequence[str], candidate: Candidate
) -> tuple[Adaptation, Ref | None]:
    """Every adapter from the source-only model: the gate's verdict, and the kept one's ref (None: source-only)."""
    config = run.config.adapt
    known = contract(config.label_sets, run.config.data.target_classes, classes)
    embedded = run("embed", inputs=places.inputs, strategies={"source": source_of(candidate)})
    gap = _gap(run, places, candidate, embedded, known)
    sound, others = _sound(run, known)
    jobs = [_job(run, places, candidate, embedded, known, choice, label) for label, choice in sound.items()]
    with runners.fleet(run.config, run.store) as fleet:
        found = replace(run, fleet=fleet).each(jobs)
    finished: list[tuple[Ref, AdaptedModel]] = []
    for label, result in zip(sound, found, strict=True):
        if isinstance(result, RetryableError):
            raise result
        if isinstance(result, TlcoreError):
            others.append(_without_result(label, failed=result.what))
            run.warnings.append(f"adapter {label} failed: {result.what}")
            continue
        model = run.store.read(result, AdaptedModel)
        named = model.adapted.model_copy(update={"strategy": label})
        finished.append((result, model.model_copy(update={"adapted": named})))
    base, images = _source_only(run, places, candidate, embedded, finished)
    verdict = judge_adapters(
        base, [model.adapted for _, model in finished], others, floor=config.source_floor, classes=len(classes),
        target_images=images, validators=[choice.name for choice in config.validators],
    )  # fmt: skip
    verdict = verdict.model_copy(update={"gap": gap})
    if not finished:
        run.warnings.append("no adapter finished; the source-only model is kept")
        return verdict, None
    kept = next((ref for ref, model in finished if model.adapted.strategy == verdict.kept), None)
    shown = kept or max(finished, key=lambda pair: pair[1].adapted.validator_score)[0]
    picture = run(
        "scatter",
        inputs={**places.inputs, "embedded": embedded, "adapted": shown},
        strategies={"source": source_of(candidate)},
    )
    return verdict.model_copy(update={"scatter": run.store.read(picture, Scatter)}), kept


def _source_only(
    run: Wiring,
    places: Places,
    candidate: Candidate,
    embedded: Ref,
    finished: Sequence[tuple[Ref, AdaptedModel]],
) -> tuple[Adapted, int]:
    """Source-only as the adapters saw it before they trained, and the number of target images."""
    if finished:
        return finished[0][1].source_only, finished[0][1].target_images
    ref = run(
        "source-only",
        inputs={**places.inputs, "embedded": embedded},
        options={"max_images": run.config.adapt.max_images},
        strategies={"source": source_of(candidate), **_validators(run)},
    )
    seen = run.store.read(ref, SourceOnlyModel)
    return seen.source_only, seen.target_images


def _validators(run: Wiring) -> dict[str, Choice]:
    return {f"validator-{i}": as_choice("validator", v) for i, v in enumerate(run.config.adapt.validators)}


def _gap(run: Wiring, places: Places, candidate: Candidate, embedded: Ref, known: Contract) -> DomainGap:
    ref = run(
        "gap",
        inputs={"data": places.data, "model": places.model, "embedded": embedded},
        options={
            "label_sets": known.label_sets,
            "declared": known.declared,
            "missing_classes": list(known.missing),
            "new_classes": list(known.new),
        },
        strategies={"source": source_of(candidate)},
    )
    return run.store.read(ref, DomainGap)


def _sound(run: Wiring, known: Contract) -> tuple[dict[str, StrategyChoice], list[Adapted]]:
    """The adapters that may be tried on these label sets, by their label, and the others, refused by name."""
    registry = open_registry(run.store.root)
    sound: dict[str, StrategyChoice] = {}
    refused: list[Adapted] = []
    choices = run.config.adapt.strategies
    for label, choice in zip(_labels(choices), choices, strict=True):
        adapter = cast(Adapter, registry.build("adapter", choice.name, choice.options, where="adapt.try"))
        why = unsound(adapter.card, known.label_sets)
        if why:
            refused.append(_without_result(label, refused=why))
            run.warnings.append(f"adapter {label} was refused: {why}")
        else:
            sound[label] = choice
    return sound, refused


def _labels(choices: Sequence[StrategyChoice]) -> list[str]:
    """Each adapter's name; one that is tried again, with other options, gets a number: "mcc", "mcc-2"."""
    names = [choice.name for choice in choices]
    return [
        name if names[:place].count(name) == 0 else f"{name}-{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]


def _job(
    run: Wiring, places: Places, candidate: Candidate, embedded: Ref, known: Contract,
    choice: StrategyChoice, label: str,
) -> StageJob:  # fmt: skip
    config = run.config.adapt
    strategies: dict[str, Choice] = {"source": source_of(candidate), "adapter": as_choice("adapter", choice)}
    strategies |= _validators(run)
    options: dict[str, Json] = {
        "source_floor": config.source_floor,
        "max_images": config.max_images,
        "label_sets": known.label_sets,
        "gmacs": candidate.gmacs,
    }
    return run.job(
        "adapt",
        label,
        inputs={**places.inputs, "embedded": embedded},
        options=options,
        strategies=strategies,
    )


def _without_result(name: str, *, failed: str | None = None, refused: str | None = None) -> Adapted:
    return Adapted(
        strategy=name, validator_score=0, source_validation_accuracy=0, failed=failed, refused=refused
    )

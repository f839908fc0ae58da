"""The run card: one HTML file that needs nothing beside it.

No script, no font, no request: the page forbids itself all of them. Names of classes and files come from
strangers; the template escapes everything but the figures, whose text matplotlib has escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from tlcore.evaluation.comparison import (
    LINEAR_PROBE,
    MAJORITY,
    RIDGE,
    SCRATCH,
    negative_transfer,
)
from tlcore.report import figures, formatting
from tlcore.report.adaptation import adaptation_view
from tlcore.report.choices import ranking_view, trial_view
from tlcore.report.contents import confusion_view, data_view, mistakes, recalls, timings_view
from tlcore.report.curves import curves
from tlcore.report.drawing import PALETTE, svg
from tlcore.report.measure import measure_of
from tlcore.report.outputs import outputs_view
from tlcore.report.search import search_views
from tlcore.report.trust import (
    calibration_view,
    classes_view,
    hard_images,
    label_errors_view,
    transfer_view,
)
from tlcore.report.verdicts import NOT_MEASURABLE
from tlcore.values import SOURCE_ONLY, Metrics, RunRecord, Trial

__all__ = ["render"]

BASELINES = {
    MAJORITY: "most frequent class",
    LINEAR_PROBE: "linear probe, frozen",
    RIDGE: "ridge, frozen",
    SCRATCH: "same network from scratch",
    SOURCE_ONLY: "before adaptation",
    "mean": "the mean of the training labels",
    "tag-frequencies": "how often each tag is there",
}
"""Baselines as a reader calls them; others keep their name."""
_PHRASES = {
    MAJORITY: "always answering the most frequent class",
    LINEAR_PROBE: "a linear probe on frozen features",
    RIDGE: "a ridge regression on frozen features",
    SCRATCH: "the same network trained from scratch",
    SOURCE_ONLY: "the same model before adaptation",
    "mean": "always answering the mean",
    "tag-frequencies": "always answering the frequencies of the tags",
}


def render(record: RunRecord) -> str:
    """The run card of `record`.

    Thumbnails are read from `record.thumbnails` (or a mistake's own uri); what is missing there is left out. The
    file is complete: it makes no request, and may be mailed.
    """
    template = _environment().get_template("card.html.j2")
    negative = negative_transfer(record.baselines, record.chosen.strategy)
    warnings = dict.fromkeys((*record.warnings, *record.metrics.warnings))
    return template.render(
        record=record,
        palette=PALETTE,
        verdict=_verdict(record),
        transfer=transfer_view(record),
        warnings=[text for text in warnings if text != negative],
        tested=_tested(record),
        results=_results(record),
        baselines=sorted(record.baselines, key=lambda entry: -entry.accuracy),
        ranking=ranking_view(record),
        trial=trial_view(record),
        searches=search_views(record),
        budget=record.config.get("finetune", {}).get("budget"),
        curves=_curves(record),
        adaptation=adaptation_view(record),
        confusion=confusion_view(record),
        recalls=recalls(record.metrics) if isinstance(record.metrics, Metrics) else [],
        classes=classes_view(record.metrics) if isinstance(record.metrics, Metrics) else None,
        outputs=outputs_view(record),
        measure=measure_of(record.metrics),
        hard=hard_images(record),
        mistakes=mistakes(record),
        calibration=calibration_view(record),
        labels=label_errors_view(record),
        data=data_view(record.data),
        timings=timings_view(record),
        configuration=formatting.toml(record.config),
        scratch=_scratch(record),
        version=record.versions.get("tlcore", ""),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlcore.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "count",
        "interval",
        "moment",
        "number",
        "options",
        "percent",
        "rate",
        "scientific",
        "score",
        "seconds",
        "signed_points",
        "size",
        "started",
    ):
        environment.filters[name] = getattr(formatting, name)
    environment.filters["baseline"] = lambda name: BASELINES.get(name, name)
    environment.globals["DASH"] = formatting.DASH
    environment.globals["NOT_MEASURABLE"] = NOT_MEASURABLE
    return environment


def _tested(record: RunRecord) -> str:
    """What the test images are: of the target where it has labelled ones, else of the source."""
    if record.adaptation is None:
        return "test images"
    labelled = record.adaptation.source_only.accuracy is not None
    return "target test images" if labelled else "source test images"


@dataclass(frozen=True)
class _Verdict:
    beats: str
    others: str
    total: float


def _verdict(record: RunRecord) -> _Verdict:
    """Against the baselines, as two halves of a sentence."""
    named = [(_PHRASES.get(entry.baseline, entry.baseline), entry) for entry in record.baselines]
    beats = [name for name, entry in named if entry.better]
    worse = [name for name, entry in named if entry.difference_ci.high < 0]
    level = [name for name, entry in named if not entry.better and entry.difference_ci.high >= 0]
    others = [f"worse than {_listed(worse)}"] * bool(worse)
    others += [f"not shown to differ from {_listed(level)}"] * bool(level)
    return _Verdict(beats=_listed(beats), others=" and ".join(others), total=sum(record.seconds.values()))


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _results(record: RunRecord) -> Markup | None:
    if not record.baselines or not isinstance(record.metrics, Metrics):
        return None
    result = f"{record.chosen.candidate} · {record.chosen.strategy}"
    drawn = figures.accuracies(record.metrics, record.baselines, BASELINES, result)
    return Markup(svg(drawn, "Test accuracy of the result and of each baseline, with intervals"))


def _curves(record: RunRecord) -> Markup | None:
    names = [_named(trial) for trial in record.trials]
    histories = dict(zip(names, (trial.history for trial in record.trials), strict=True))
    if not any(histories.values()):
        return None
    chosen = next((_named(trial) for trial in record.trials if record.chosen.made_by(trial)), "")
    return Markup(svg(curves(histories, chosen), "Training loss and validation measure by epoch"))


def _named(trial: Trial) -> str:
    return " · ".join(filter(None, (trial.candidate, trial.strategy, formatting.options(trial.options))))


def _scratch(record: RunRecord) -> str:
    """The strategy of the from-scratch baseline with its options, as the configuration says it."""
    choice = record.config.get("evaluation", {}).get("scratch", {})
    name = choice.get("name", "")
    options = formatting.options(choice.get("options", {}))
    return f"{name}, {options}" if options else str(name)

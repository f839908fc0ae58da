"""What the run card shows of domain adaptation: the gap before it, the adapters, and the rule that kept one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from markupsafe import Markup
from matplotlib.figure import Figure

from tlcore.evaluation.accuracy_estimates import CANNOT_SEE
from tlcore.evaluation.gate import KEPT, NOT_KEPT
from tlcore.report import adaptation_figures, figures, gap_figures
from tlcore.report.drawing import svg
from tlcore.report.gap import SHOWN_CLASSES, Measure, gap_measures
from tlcore.report.thumbnails import thumbnail
from tlcore.report.verdicts import finished, pictured_adapter, shown_entries
from tlcore.values import SOURCE_ONLY, Adaptation, Adapted, DomainGap, RunRecord

__all__ = ["AdaptationView", "GapView", "adaptation_view"]

FEW_VALIDATORS = 3
"""Validators up to which their scores stand beside the adapters; of more there is a table of their own."""


@dataclass(frozen=True)
class Example:
    """`picture` is None where the file cannot be shown any more."""

    file: str
    picture: str | None


@dataclass(frozen=True)
class GapView:
    """`classes`: how many of `all_classes` the figure of their balance shows."""

    measures: list[Measure]
    notes: tuple[str, ...]
    balance: Markup | None
    classes: int
    all_classes: int
    examples: list[tuple[str, list[Example]]]


@dataclass(frozen=True)
class Row:
    """An adapter in the table. `why` it was not kept, as far as the rule says it."""

    entry: Adapted
    kept: bool
    why: str

    @property
    def finished(self) -> bool:
        return finished(self.entry)


@dataclass(frozen=True)
class AdaptationView:
    gap: GapView | None
    reason: str
    source_only_kept: bool
    rows: list[Row]
    beside: list[str]
    validators: list[str]
    labelled: bool
    measured: Markup | None
    estimated: list[Adapted]
    cannot_see: str
    over_time: Markup | None
    stopped: bool
    by_domain: Markup | None
    by_class: Markup | None
    pictured: str


def adaptation_view(record: RunRecord) -> AdaptationView | None:
    """The gap, the adapters and the figures; None where nothing was adapted."""
    adaptation = record.adaptation
    if adaptation is None:
        return None
    entries = shown_entries(adaptation)
    labelled = any(entry.accuracy is not None for entry in entries)
    estimated = [entry for entry in entries if entry.estimates is not None]
    names = list(adaptation.source_only.validators)
    drawn = figures.adapters(adaptation) if labelled or estimated else None
    shown = "Target accuracy of each adapter" if labelled else "Expected target accuracy of each adapter"
    scattered = adaptation.scatter
    by_domain = adaptation_figures.scatter(scattered, "domain") if scattered else None
    by_class = adaptation_figures.scatter(scattered, "class") if scattered else None
    return AdaptationView(
        gap=None if adaptation.gap is None else _gap(adaptation.gap),
        reason=_reason(adaptation),
        source_only_kept=adaptation.kept == SOURCE_ONLY,
        rows=[_row(entry, adaptation) for entry in entries],
        beside=names if 1 < len(names) <= FEW_VALIDATORS else [],
        validators=names if len(names) > FEW_VALIDATORS else [],
        labelled=labelled,
        measured=_inline(drawn, shown),
        estimated=estimated,
        cannot_see=CANNOT_SEE,
        over_time=_inline(
            adaptation_figures.validators_over_time(adaptation), "Validators of each adapter by epoch"
        ),
        stopped=any(entry.stopped for entry in adaptation.tried),
        by_domain=_inline(by_domain, "Features before and after adaptation, coloured by domain"),
        by_class=_inline(by_class, "Features before and after adaptation, coloured by class"),
        pictured=pictured_adapter(adaptation),
    )


def _gap(gap: DomainGap) -> GapView:
    classes = len({*gap.source_shares, *gap.predicted_shares, *gap.label_shares})
    pictures = {"Source": gap.source_examples, "Target": gap.target_examples}
    return GapView(
        measures=gap_measures(gap),
        notes=gap.notes,
        balance=_inline(gap_figures.class_balance(gap), "Share of each class in source and target"),
        classes=min(classes, SHOWN_CLASSES),
        all_classes=classes,
        examples=[
            (name, [Example(PurePath(uri).name, thumbnail(uri)) for uri in uris])
            for name, uris in pictures.items()
            if uris
        ],
    )


def _row(entry: Adapted, adaptation: Adaptation) -> Row:
    kept = entry.strategy == adaptation.kept
    return Row(entry, kept, "" if kept else entry.verdict)


def _reason(adaptation: Adaptation) -> str:
    """Why it was kept; where each adapter has its own verdict, the others stand with the adapters."""
    # the card sets in bold itself who was kept
    own = next((entry.verdict for entry in adaptation.tried if entry.strategy == adaptation.kept), "")
    if own:
        return own.removeprefix(KEPT)
    if any(entry.verdict for entry in adaptation.tried):
        return "No adapter passed the rule; why not stands with each one below."
    reason = adaptation.reason.removeprefix(KEPT).removeprefix(NOT_KEPT)
    return reason[:1].upper() + reason[1:]


def _inline(figure: Figure | None, label: str) -> Markup | None:
    return None if figure is None else Markup(svg(figure, label))

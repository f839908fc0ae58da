"""Domain adaptation on stdout: the gap in a line, the adapters as a table, then words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tlcore.evaluation.accuracy_estimates import CANNOT_SEE
from tlcore.report.formatting import DASH
from tlcore.report.gap import gap_line
from tlcore.report.verdicts import NOT_MEASURABLE, finished, shown_entries
from tlcore_flows.cli_console import percent, table

if TYPE_CHECKING:
    from tlcore.values import Adaptation, Adapted

__all__ = ["print_adaptation"]


def print_adaptation(out: Console, adaptation: Adaptation) -> None:
    """Names come from strangers: a Text is shown as it is, brackets are no markup."""
    shown = [entry for entry in shown_entries(adaptation) if finished(entry)]
    labelled = any(entry.accuracy is not None for entry in shown)
    estimated = any(entry.estimates is not None for entry in shown)
    out.print()
    out.print(Text(f"adaptation to {adaptation.target_images} unlabelled target images", style="bold"))
    if adaptation.gap is not None:
        out.print(Text(gap_line(adaptation.gap)))
        for note in adaptation.gap.notes:
            out.print(Text(note, style="yellow"))
    out.print(_table(adaptation, shown, labelled=labelled, estimated=estimated))
    if not labelled:
        out.print(Text(f"target accuracy {NOT_MEASURABLE}"))
    interval = "; in brackets the 95 % interval" if labelled else ""
    out.print(Text(f"score: {adaptation.validator}, label-free{interval}", style="dim"))
    if estimated:
        out.print(Text(f"expected: ATC and difference of confidences. {CANNOT_SEE}", style="dim"))
    out.print()
    if not any(entry.verdict for entry in adaptation.tried):
        out.print(Text(adaptation.reason))
        return
    for entry in adaptation.tried:
        _print_outcome(out, entry, adaptation)


def _table(adaptation: Adaptation, entries: list[Adapted], *, labelled: bool, estimated: bool) -> Table:
    columns = ["adapter", "score"]
    if labelled:
        columns += ["target accuracy", "last", "oracle"]
    if estimated:
        columns.append("expected")
    made = table(*columns, right=tuple(columns[1:]))
    for entry in entries:
        kept = entry.strategy == adaptation.kept
        cells = [f"{entry.validator_score:.3f}"]
        if labelled:
            cells += [_accuracy(entry), percent(entry.accuracy_last), percent(entry.accuracy_oracle)]
        if estimated:
            cells.append(_expected(entry))
        name = Text(f"{entry.strategy} (kept)" if kept else entry.strategy, style="bold" if kept else "")
        made.add_row(name, *cells)
    return made


def _print_outcome(out: Console, entry: Adapted, adaptation: Adaptation) -> None:
    """The verdict on an adapter, or why there is none."""
    if entry.refused is not None:
        out.print(Text(f"{entry.strategy}: refused, {entry.refused}", style="yellow"))
    elif entry.failed is not None:
        out.print(Text(f"{entry.strategy}: failed, {entry.failed}", style="yellow"))
    else:
        if entry.stopped:
            out.print(Text(f"{entry.strategy}: stopped early, {entry.stopped}", style="yellow"))
        out.print(Text(f"{entry.strategy}: {entry.verdict}"))


def _accuracy(entry: Adapted) -> str:
    between = entry.accuracy_ci
    if between is None:
        return percent(entry.accuracy)
    return f"{percent(entry.accuracy)} [{100 * between.low:.1f}, {100 * between.high:.1f}]"


def _expected(entry: Adapted) -> str:
    known = entry.estimates
    return DASH if known is None else f"{100 * known.low:.0f}–{100 * known.high:.0f} %"

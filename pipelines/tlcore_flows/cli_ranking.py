"""A ranking on stdout: as many tables below each other as the width asks for, then words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tlcore.report import formatting
from tlcore.report.measure import measure_in
from tlcore.report.places import grouped_notes, level_with_best, place, shortlist_sentence
from tlcore_flows.cli_console import table, value_of

if TYPE_CHECKING:
    from tlcore.values import Ranked, Ranking

__all__ = ["print_ranked", "ranking_tables"]

TIED = "≈"
GAP = 2
"""Characters between two columns: the padding of one, and the line of the header."""
LEFT_OUT_SHOWN = 30
"""Candidates that took no part and are listed with the reason; of the others only the number is said."""


@dataclass(frozen=True)
class _Column:
    header: str
    cells: list[str]
    right: bool = True

    @property
    def width(self) -> int:
        return max(len(line) for line in (*self.header.split("\n"), *self.cells))


def print_ranked(out: Console, ranking: Ranking) -> None:
    """The tables, the shortlist in a sentence, notes, and who took no part."""
    for position, made in enumerate(ranking_tables(ranking, out.width)):
        if position:
            out.print()
        out.print(made)
    out.print()
    sentence = shortlist_sentence(ranking)
    if sentence:
        out.print(Text(sentence, style="bold"))
    out.print(Text(_legend(ranking), style="dim"))
    for note, candidates in grouped_notes([entry for entry in ranking.entries if entry.rank is not None]):
        everyone = len(candidates) == sum(entry.rank is not None for entry in ranking.entries)
        out.print(Text(f"{'all candidates' if everyone else ', '.join(candidates)}: {note}", style="dim"))
    _print_left_out(out, [entry for entry in ranking.entries if entry.rank is None])


def ranking_tables(ranking: Ranking, width: int) -> list[Table]:
    """The ranked candidates from best to worst, one table if it fits into `width` characters.

    Else several with the candidates in the same order: no column is squeezed, long names are folded.
    """
    entries = [entry for entry in ranking.entries if entry.rank is not None]
    longest = max(16, width // 4)
    name = _Column("candidate", [entry.candidate for entry in entries], right=False)
    lead = [_Column("rank", [place(entry) for entry in entries])]
    if len(level_with_best(ranking)) > 1:
        lead.append(_Column("", [TIED if entry.tied_with_best else "" for entry in entries], right=False))
    columns = [*lead, *_columns(ranking, entries)]
    groups = list(_packed(columns, width - min(name.width, longest)))
    groups[0] = [*lead, name, *groups[0][len(lead) :]]
    return [_table(group if group[0] is lead[0] else [name, *group], longest) for group in groups]


def _columns(ranking: Ranking, entries: Sequence[Ranked]) -> Iterator[_Column]:
    """Scores, then the prior, what fine-tuning achieved, then cost; none that holds nothing."""
    for name in ranking.scorers:
        # Long names break where they have a dash, so that no header is wider than it must be.
        yield _Column(
            name.replace("-", "-\n"), [formatting.score(entry.scores.get(name)) for entry in entries]
        )
    measure = measure_in(ranking.achieved_measure)
    shown: tuple[tuple[str, str, Callable[[Ranked], str]], ...] = (
        ("top-1\n%", "prior", lambda entry: _tenths(entry.prior)),
        ("prior\nrank", "prior_rank", lambda entry: str(entry.prior_rank or formatting.DASH)),
        ("fine-\ntuned", "achieved", lambda entry: value_of(measure, entry.achieved)),
        ("params", "params", lambda entry: formatting.number(entry.params)),
        ("GMACs", "gmacs", lambda entry: formatting.DASH if entry.gmacs is None else f"{entry.gmacs:.2f}"),
        ("images\nper s", "images_per_second", lambda entry: formatting.rate(entry.images_per_second)),
        ("latency\nms", "latency_ms", lambda entry: _tenths(entry.latency_ms)),
        ("ONNX\nMB", "onnx_bytes", lambda entry: _tenths(_scaled(entry.onnx_bytes, 1e6))),
    )
    for header, field, text in shown:
        if any(getattr(entry, field) is not None for entry in entries):
            yield _Column(header, [text(entry) for entry in entries])


def _packed(columns: list[_Column], room: int) -> Iterator[list[_Column]]:
    """Columns in order, in groups that fit into `room` beside the name; at least one in a group."""
    group: list[_Column] = []
    used = 0
    for column in columns:
        if group and used + GAP + column.width > room:
            yield group
            group, used = [], 0
        group.append(column)
        used += GAP + column.width
    yield group


def _table(columns: list[_Column], longest: int) -> Table:
    made = table()
    made.padding = (0, 1, 0, 0)
    for column in columns:
        made.add_column(
            Text(column.header),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.right,
            min_width=None if column.header == "candidate" else column.width,
            max_width=longest if column.header == "candidate" else None,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        # A Text is shown as it is: names come from strangers and brackets are no markup.
        made.add_row(*map(Text, row))
    return made


def _legend(ranking: Ranking) -> str:
    parts = [f"Scores on up to {ranking.images:,} labelled images, higher is better."]
    if any(entry.rank_interval is not None for entry in ranking.entries):
        parts.append("Rank: in brackets where it lies in 95 % of redraws of the images.")
    if len(level_with_best(ranking)) > 1:
        parts.append(f"{TIED} cannot be told from the best.")
    if ranking.prior:
        parts.append(f"Prior: rank by {ranking.prior}, a baseline with no part in the rank.")
    if ranking.achieved_measure:
        parts.append(f"Fine-tuned: {ranking.achieved_measure}.")
    return " ".join(parts)


def _print_left_out(out: Console, entries: Sequence[Ranked]) -> None:
    if not entries:
        return
    out.print()
    out.print(Text(f"{len(entries):,} left out:"))
    for entry in entries[:LEFT_OUT_SHOWN]:
        out.print(Text(f"  {entry.candidate}: {entry.skipped}", style="dim"))
    if len(entries) > LEFT_OUT_SHOWN:
        rest = len(entries) - LEFT_OUT_SHOWN
        out.print(Text(f"  and {rest:,} more; tlcore rank --json lists all with the reason", style="dim"))


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _tenths(value: float | None) -> str:
    return formatting.DASH if value is None else f"{value:,.1f}"

"""Places of a ranking in words: the same on the terminal, in artifacts and on the card."""

from __future__ import annotations

from collections.abc import Sequence

from tlcore.report.formatting import DASH
from tlcore.values import Ranked, Ranking

__all__ = ["grouped_notes", "level_with_best", "place", "shortlist_sentence"]


def place(entry: Ranked) -> str:
    """ "2 (1–4)": the rank and its interval; "2 (2)" where all draws agree, "2" where there are none."""
    if entry.rank is None:
        return DASH
    if entry.rank_interval is None:
        return str(entry.rank)
    low, high = entry.rank_interval.low, entry.rank_interval.high
    return f"{entry.rank} ({low:.0f})" if low == high else f"{entry.rank} ({low:.0f}–{high:.0f})"


def level_with_best(ranking: Ranking) -> list[str]:
    """The candidates that cannot be told from the best, it included, best first."""
    return [entry.candidate for entry in ranking.entries if entry.tied_with_best]


def shortlist_sentence(ranking: Ranking) -> str:
    """Who goes on, and why so many; empty for a ranking that has no shortlist."""
    if not ranking.shortlist:
        return ""
    best, *others = ranking.shortlist
    level = len(level_with_best(ranking)) - 1
    if level < 1:
        if all(entry.rank_interval is None for entry in ranking.entries):
            return f"Shortlist: {best}. How firm its place is was not measured."
        apart = sum(entry.rank is not None for entry in ranking.entries) > 1
        return f"Shortlist: {best}" + (
            ", which the images tell from every other candidate." if apart else "."
        )
    noun = "candidate" if level == 1 else "candidates"
    if not others:
        return f"Shortlist: {best}; {level} {noun} cannot be told from it, and only the first goes on."
    some = (
        ""
        if level == len(others)
        else f", of which the first {len(others)} " + ("goes on" if len(others) == 1 else "go on")
    )
    return f"Shortlist: {best}; {level} {noun} cannot be told from it{some}: {', '.join(others)}."


def grouped_notes(entries: Sequence[Ranked]) -> list[tuple[str, list[str]]]:
    """Each note once, with the candidates that it is about."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        for note in entry.notes:
            found.setdefault(note, []).append(entry.candidate)
    return list(found.items())

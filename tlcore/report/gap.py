"""The gap between two domains in numbers and plain words: for the card, the terminal and a scheduler's artifacts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tlcore.evaluation.domain_gap import class_balance_gap
from tlcore.report import formatting
from tlcore.values import DomainGap

__all__ = ["SHOWN_CLASSES", "Measure", "balance_classes", "gap_line", "gap_measures", "label_sets_sentence"]

SHOWN_CLASSES = 12
"""Classes up to which all are shown with their shares; of more the ones whose shares differ most."""
_LISTED = 5
_SCALE = (
    (0.4, "hardly apart"),
    (1.2, "partly apart"),
    (1.8, "clearly apart"),
    (math.inf, "all but separate"),
)
"""Proxy A-distance below which the words hold: at 60, 80 and 95 % of images put into the right domain."""


@dataclass(frozen=True)
class Measure:
    """One line of the report: what was measured, the number, and how to read it."""

    name: str
    value: str
    reading: str


def gap_measures(gap: DomainGap) -> list[Measure]:
    """Every line of the report before training, from the label sets to the duplicates."""
    lines = [Measure("Label sets", _label_sets(gap), label_sets_sentence(gap))]
    for place, (domain, distance) in enumerate(gap.a_distance.items()):
        name = f"Proxy A-distance, {domain}" if len(gap.a_distance) > 1 else "Proxy A-distance"
        reading = _a_distance_words(distance) + ("" if place else "; 0 is chance (50 %), 2 all of them")
        lines.append(Measure(name, f"{distance:.2f} of 2", reading))
    lines += [
        Measure("CORAL", _small(gap.coral), "distance of the features’ covariances; 0: none, no upper end"),
        Measure("MMD²", _small(gap.mmd), _mmd_words(gap.mmd_p)),
    ]
    for name, shares in (("as predicted", gap.predicted_shares), ("by test labels", gap.label_shares)):
        apart = _balance(gap.source_shares, shares)
        if apart is not None:
            reading = (
                f"{formatting.percent(apart, 0)} of the images would have to change class to match the source"
            )
            lines.append(Measure(f"Class balance, target {name}", f"{apart:.2f} of 1", reading))
    if gap.duplicates:
        examples = ", ".join(gap.duplicate_examples)
        reading = "with the same bytes in both domains" + (f": {examples}" if examples else "")
        if 0 < len(gap.duplicate_examples) < gap.duplicates:
            reading += ", …"
        files = "1 file" if gap.duplicates == 1 else f"{gap.duplicates:,} files"
        lines.append(Measure("Duplicates", files, reading))
    else:
        lines.append(Measure("Duplicates", "none", "no file has the same bytes in both domains"))
    return lines


def gap_line(gap: DomainGap) -> str:
    """The report in one line."""
    distances = [
        f"{domain} {distance:.2f}" if len(gap.a_distance) > 1 else f"{distance:.2f}"
        for domain, distance in gap.a_distance.items()
    ]
    parts = [f"label sets {_label_sets(gap)}"]
    if distances:
        words = f" ({_words(max(gap.a_distance.values()))})"
        parts.insert(0, f"proxy A-distance {', '.join(distances)} of 2{words}")
    parts += [f"CORAL {_small(gap.coral)}", f"MMD² {_small(gap.mmd)} (p {gap.mmd_p:.3f})"]
    copies = "1 duplicate" if gap.duplicates == 1 else f"{gap.duplicates or 'no'} duplicates"
    return "gap: " + ", ".join([*parts, copies])


def label_sets_sentence(gap: DomainGap) -> str:
    """What is known of the classes of the target, and from whom."""
    lacking = f"lacks classes of the source{_named(gap.missing_classes)}"
    having = f"has classes that the source lacks{_named(gap.new_classes)}"
    said = {
        "closed": "has the classes of the source",
        "partial": lacking,
        "open": having,
        "open-partial": f"{lacking}, and {having}",
    }.get(gap.label_sets, gap.label_sets)
    return f"the target {said}, {'as declared' if gap.declared else 'as is assumed: nobody said so'}"


def balance_classes(gap: DomainGap) -> list[str]:
    """Classes whose shares are shown: all in order, or of many those that differ most, the largest gap first."""
    names = list(dict.fromkeys([*gap.source_shares, *gap.predicted_shares, *gap.label_shares]))
    if len(names) <= SHOWN_CLASSES:
        return names
    others = [shares for shares in (gap.predicted_shares, gap.label_shares) if shares]

    def apart(name: str) -> float:
        own = gap.source_shares.get(name, 0.0)
        return max((abs(own - shares.get(name, 0.0)) for shares in others), default=own)

    return sorted(names, key=apart, reverse=True)[:SHOWN_CLASSES]


def _label_sets(gap: DomainGap) -> str:
    return f"{gap.label_sets} ({'declared' if gap.declared else 'assumed'})"


def _words(distance: float) -> str:
    return next(words for limit, words in _SCALE if distance < limit)


def _a_distance_words(distance: float) -> str:
    right = 50 + 25 * distance
    return f"{_words(distance)}: a linear classifier finds the domain of {right:.0f} % of new images"


def _mmd_words(p: float) -> str:
    verdict = "the features differ" if p <= 0.05 else "not shown to differ"
    return f"{verdict}: p {p:.3f}, the share of random partings of the same images that lie as far apart"


def _balance(source: dict[str, float], target: dict[str, float]) -> float | None:
    names = list(dict.fromkeys([*source, *target]))
    if not sum(source.values()) > 0 or not sum(target.values()) > 0:
        return None
    return class_balance_gap([source.get(n, 0.0) for n in names], [target.get(n, 0.0) for n in names])


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f" ({', '.join(names[:_LISTED])}{rest})"


def _small(value: float) -> str:
    """Three decimals, or a power of ten where they would be zeros."""
    if value == 0 or abs(value) >= 0.001:
        return formatting.score(value)
    return ("−" if value < 0 else "") + formatting.scientific(abs(value))

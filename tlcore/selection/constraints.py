"""Constraints on cost and licence: who may take part, decided before any image is decoded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from tlcore.config import SelectionConfig
from tlcore.errors import UserError
from tlcore.values import Candidate, Ranking

__all__ = [
    "UNSTATED", "by_reason", "constrain", "none_left", "over_latency", "reason_to_remove", "teachers", "way_on",
    "with_latencies",
]  # fmt: skip

UNSTATED = frozenset({"", "none", "noassertion", "unknown", "unstated"})
"""What stands where nobody stated a licence (NOASSERTION and NONE are SPDX's words): * does not stand for it."""

_LIMITS = ("max_params", "max_gmacs", "licences")
NAMED = 5
"""Candidates that an error names for each reason; the others are counted."""
REASONS = 12
"""Reasons that an error gives."""


def constrain(
    candidates: Iterable[Candidate], limits: SelectionConfig
) -> tuple[list[Candidate], list[tuple[Candidate, str]]]:
    """Those that may take part, and the others with the reason, both in their order.

    What a candidate is known to be decides first. One that cannot take part for another reason (`skipped`) keeps
    that reason where it does not break a limit too.
    """
    kept: list[Candidate] = []
    removed: list[tuple[Candidate, str]] = []
    for candidate in candidates:
        reason = reason_to_remove(candidate, limits) or candidate.skipped
        if reason is None and candidate.preprocess is None:
            reason = "it says no input size"
        if reason is None:
            reason = _unknown_cost(candidate, limits)
        if reason is None:
            kept.append(candidate)
        else:
            removed.append((candidate, reason))
    return kept, removed


def reason_to_remove(candidate: Candidate, limits: SelectionConfig) -> str | None:
    """Which limit what is known of a candidate breaks: every one of them, or None."""
    reasons: list[str] = []
    if limits.max_params is not None and candidate.params is not None:
        millions = candidate.params / 1e6
        if millions > limits.max_params:
            reasons.append(
                f"{_above(millions, limits.max_params)} M parameters, over the limit of {limits.max_params:g} M"
            )
    if limits.max_gmacs is not None and candidate.gmacs is not None and candidate.gmacs > limits.max_gmacs:
        reasons.append(
            f"{_above(candidate.gmacs, limits.max_gmacs)} GMACs an image, over the limit of {limits.max_gmacs:g}"
        )
    if limits.licences and not _allowed(candidate.licence, limits.licences):
        reasons.append(
            "its licence is unknown"
            if candidate.licence.casefold() in UNSTATED
            else f"its licence {candidate.licence} is not among those allowed"
        )
    return "; ".join(reasons) or None


def teachers(
    removed: Iterable[tuple[Candidate, str]], limits: SelectionConfig, most: int | None = None
) -> list[Candidate]:
    """Of the candidates that were left out, those that may teach another: only the limits of cost keep them out.

    At most `most` (selection.shortlist) of them, by the static prior, and by size where there is none.
    """
    unbound = limits.model_copy(update={"max_params": None, "max_gmacs": None, "max_latency_ms": None})
    able, _ = constrain((candidate for candidate, _ in removed), unbound)
    able.sort(key=lambda one: (-(one.prior or 0.0), -(one.params or 0)))
    return able[: limits.shortlist if most is None else most]


def over_latency(milliseconds: float, limits: SelectionConfig) -> str | None:
    """The reason for leaving out a candidate that was measured as slower than allowed."""
    if limits.max_latency_ms is None or milliseconds <= limits.max_latency_ms:
        return None
    return (
        f"{_above(milliseconds, limits.max_latency_ms)} ms for one image, over the limit of "
        f"{limits.max_latency_ms:g} ms"
    )


def with_latencies(ranking: Ranking, milliseconds: Mapping[str, float]) -> Ranking:
    """`ranking` with the measured latency beside the candidates that have one."""
    entries = tuple(
        entry.model_copy(update={"latency_ms": milliseconds.get(entry.candidate, entry.latency_ms)})
        for entry in ranking.entries
    )
    return ranking.model_copy(update={"entries": entries})


def none_left(removed: Sequence[tuple[Candidate, str]], limits: SelectionConfig) -> UserError:
    """The error where no candidate is left: every reason with the candidates it holds for, and the way on."""
    return UserError(
        f"no source model is left: {by_reason(removed)}",
        where="[selection]",
        hint=way_on([candidate for candidate, _ in removed], limits),
    )


def by_reason(removed: Iterable[tuple[Candidate, str]]) -> str:
    """The candidates that each reason holds for: of thousands a few by name, the others counted."""
    names: dict[str, list[str]] = {}
    for candidate, reason in removed:
        names.setdefault(reason, []).append(candidate.name)
    lines = []
    for reason, group in list(names.items())[:REASONS]:
        more = f" and {len(group) - NAMED:,} more" if len(group) > NAMED else ""
        lines.append(f"{', '.join(group[:NAMED])}{more}: {reason}")
    if len(names) > REASONS:
        lines.append(f"and {sum(map(len, list(names.values())[REASONS:]))} models for other reasons")
    return "; ".join(lines)


def way_on(candidates: Sequence[Candidate], limits: SelectionConfig) -> str:
    """For people whose limits nobody is inside: how far each would have to move for one candidate to be inside, the
    other limits kept."""
    usable = [candidate for candidate in candidates if candidate.skipped is None] or list(candidates)
    ways = [way for name in _LIMITS if (way := _single_way(usable, limits, name))]
    if not ways:  # no single limit is at fault: say it for each as if it stood alone
        alone = {name: SelectionConfig.model_validate({name: getattr(limits, name)}) for name in _LIMITS}
        ways = [way for name in _LIMITS if (way := _single_way(usable, alone[name], name))]
    if limits.max_latency_ms is not None:
        ways.append("raise --max-latency-ms, or name smaller models")
    return "; ".join(
        [*ways, "or name other models with --models" if ways else "name other models with --models"]
    )


def _single_way(candidates: Sequence[Candidate], limits: SelectionConfig, name: str) -> str:
    """What to set the limit `name` to; "" where it is not what keeps everybody out."""
    given = getattr(limits, name)
    lifted = limits.model_copy(update={name: SelectionConfig.model_fields[name].default})
    inside = [one for one in candidates if reason_to_remove(one, lifted) is None]
    if not given or not inside or any(reason_to_remove(one, limits) is None for one in inside):
        return ""
    if name == "licences":
        known = sorted({one.licence for one in inside}, key=str.casefold)
        return f"licences here: {', '.join(known)}{_meant(given, known)}"
    if name == "max_params":
        least = min(one.params / 1e6 for one in inside if one.params is not None)
        return f"--max-params {_rounded_up(least)} lets the smallest in"
    least = min(one.gmacs for one in inside if one.gmacs is not None)
    return f"--max-gmacs {_rounded_up(least)} lets the cheapest in"


def _meant(given: Sequence[str], known: Sequence[str]) -> str:
    folded = {licence.casefold(): licence for licence in known}
    for pattern in given:
        near = difflib.get_close_matches(pattern.casefold(), list(folded), n=1, cutoff=0.5)
        if near:
            return f' (for "{pattern}" did you mean "{folded[near[0]]}"?)'
    return ""


def _unknown_cost(candidate: Candidate, limits: SelectionConfig) -> str | None:
    unknown = [
        (limit, what)
        for limit, value, what in (
            (limits.max_params, candidate.params, "number of parameters"),
            (limits.max_gmacs, candidate.gmacs, "work for an image"),
        )
        if limit is not None and value is None
    ]
    return (
        f"its {' and its '.join(what for _, what in unknown)} cannot be told, and a limit is set"
        if unknown
        else None
    )


def _allowed(licence: str, patterns: Sequence[str]) -> bool:
    """SPDX names in any case. * does not stand for what nobody stated."""
    name = licence.casefold()
    if name in UNSTATED:
        return any(pattern.casefold() == name for pattern in patterns)
    return any(fnmatchcase(name, pattern.casefold()) for pattern in patterns)


def _above(value: float, limit: float) -> str:
    """`value` with so many digits that it is seen to lie above `limit`."""
    for digits in range(2, 17):
        text = f"{value:.{digits}g}"
        if float(text) > limit:
            return f"{float(text):,g}" if digits <= 6 else text
    return repr(value)


def _rounded_up(value: float) -> str:
    """Two digits, never below `value`."""
    from math import ceil, floor, log10

    step = 10.0 ** (floor(log10(value)) - 1)
    return f"{ceil(value / step) * step:g}"

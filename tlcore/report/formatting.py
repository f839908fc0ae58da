"""Numbers as a reader wants them: one way for each quantity, with its unit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tlcore.values import Interval

__all__ = [
    "DASH",
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
    "toml",
]

DASH = "–"
"""Stands for a value that is not there."""
_THIN = "\u202f"  # narrow no-break space


def percent(share: float | None, digits: int = 1) -> str:
    """0.9512 -> "95.1 %"."""
    return DASH if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f}{_THIN}%"


def interval(value: Interval | None, digits: int = 1) -> str:
    """Interval(0.92, 0.974) -> "92.0 – 97.4 %"."""
    return (
        ""
        if value is None
        else f"{100 * value.low:.{digits}f}{_THIN}–{_THIN}{100 * value.high:.{digits}f}{_THIN}%"
    )


def signed_points(difference: float) -> str:
    """0.123 -> "+12.3"; a true minus sign, so that columns align."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def score(value: float | None) -> str:
    """A score in its own unit, three decimals, or four digits where it is large."""
    if value is None or not math.isfinite(value):
        return DASH
    return (f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}").replace("-", "−")


def count(value: float | None) -> str:
    """11689512 -> "11,689,512"."""
    return DASH if value is None else f"{value:,.0f}"


def moment(iso: str) -> str:
    """ "2026-11-21T09:45:12Z" -> "21 November 2026, 09:45 UTC"; text that is no time stays as it is."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or 'UTC'}"


def number(value: float | None) -> str:
    """11689512 -> "11.7 M"."""
    if value is None:
        return DASH
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            scaled = value / factor
            return f"{scaled:.{0 if scaled >= 100 else 1}f}{_THIN}{unit}"
    return f"{value:.0f}" if value >= 10 else f"{value:.3g}"


def rate(value: float | None) -> str:
    """Images a second: 1604.2 -> "1,604", 7.31 -> "7.3"."""
    return DASH if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def scientific(value: float) -> str:
    """3.4e-06 -> "3.4 × 10⁻⁶"."""
    if not math.isfinite(value) or value == 0:
        return "0" if value == 0 else DASH
    mantissa, exponent = f"{value:.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}{_THIN}×{_THIN}10{power}"


def seconds(value: float | None) -> str:
    """Seconds below two minutes, else minutes and seconds."""
    if value is None:
        return DASH
    if value < 0.095:
        return f"{1000 * value:.0f}{_THIN}ms"
    if value < 120:
        return f"{value:.1f}{_THIN}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:
        return f"{minutes}{_THIN}min {rest:02d}{_THIN}s"
    return f"{minutes // 60}{_THIN}h {minutes % 60:02d}{_THIN}min"


def size(value: int) -> str:
    """Bytes in powers of 1000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f}{_THIN}{unit}"
    return f"{value}{_THIN}B"


def toml(config: Mapping[str, Any]) -> str:
    """A configuration as TOML shows it: plain keys first, then a [table] per mapping; what is unset is left out."""
    return "\n".join(_table(config, ())).strip()


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping) and value}
    lines = [
        f"{_key(key)} = {_value(value)}"
        for key, value in table.items()
        if key not in inner and value is not None
    ]
    if path and (lines or not inner):
        lines.insert(0, f"\n[{'.'.join(map(_key, path))}]")
    for key, value in inner.items():
        lines += _table(value, (*path, key))
    return lines


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


def options(values: Mapping[str, Any]) -> str:
    """{"epochs": 15, "sam": None} -> "epochs = 15, sam = none"."""
    return ", ".join(f"{name} = {'none' if value is None else value}" for name, value in values.items())


def started(strategy: str, kept_start: str) -> str:
    """A strategy, and what it kept where no epoch was better: "lp-ft, which kept its start: the linear probe"."""
    if not kept_start:
        return strategy
    return f"{strategy}, which kept its start" + (f": {kept_start}" if kept_start != "its start" else "")

"""Stretches of time as people write them: 90, "90s", "10m", "1h30m"."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["parse_seconds"]

_NUMBER = r"(\d+(?:\.\d+)?)"
_PARTS = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?", re.ASCII)
_UNITS = (3600.0, 60.0, 1.0)
_FORMS = "write seconds, or hours, minutes and seconds as in 90s, 10m or 1h30m"


def parse_seconds(given: Any) -> Any:
    """Seconds of a text; what is no text is left for its type to judge.

    Raises:
        ValueError: the text is neither a number nor hours, minutes and seconds in this order.
    """
    if isinstance(given, bool):
        raise ValueError(_FORMS)
    if not isinstance(given, str):
        return given
    text = "".join(given.split()).lower()
    try:
        return float(text)
    except ValueError:
        pass
    found = _PARTS.fullmatch(text)
    if found is None or not any(found.groups()):
        raise ValueError(_FORMS)
    return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)

"""What a comparison of two ways says: ratios measured in one run, beside the limits they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["Report"]


class Report:
    """Lines that are shown at once, and written to a file in the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)

    def ratio(self, what: str, values: Sequence[float], limit: float | None = None) -> None:
        middle = statistics.median(values)
        said = f"{what:54}{middle:6.2f} ({min(values):.2f} to {max(values):.2f})"
        if limit is not None:
            said += f"   limit {limit:g}: {'holds' if middle <= limit else 'does not hold'}"
        self.say(said)

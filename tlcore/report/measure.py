"""What networks are compared by, and how a value of it is written: one way for card, terminal and figures."""

from __future__ import annotations

from dataclasses import dataclass

from tlcore.report import formatting
from tlcore.values import Metrics, NumberMetrics, TagMetrics, Task

__all__ = ["ACCURACY", "AVERAGE_PRECISION", "R_SQUARED", "Measure", "measure_in", "measure_of"]


@dataclass(frozen=True)
class Measure:
    """share: it lies in [0, 1], is written in percent, and its differences are points; else both stay as they are."""

    name: str
    share: bool = True

    def text(self, value: float | None) -> str:
        """0.951 -> "95.1 %" of a share, else "0.951"."""
        return formatting.percent(value) if self.share else formatting.score(value)

    def gap(self, difference: float) -> str:
        """0.012 -> "1.2 points" of a share, else "0.012"."""
        return f"{self.number(difference)} points" if self.share else self.number(difference)

    def number(self, difference: float) -> str:
        """0.012 -> "1.2" of a share, else "0.012"."""
        return formatting.score(difference) if not self.share else f"{100 * difference:.1f}".replace("-", "−")

    @property
    def unit(self) -> str:
        """Of differences, for the head of a table."""
        return "points" if self.share else self.name

    def axis(self, name: str = "") -> str:
        """Title of an axis of `name` (default: of the measure), on which shares are numbers of percent."""
        return f"{name or self.name}, %" if self.share else name or self.name

    def tick(self, value: float) -> str:
        """0.25 -> "25" of a share, else "0.25"."""
        return f"{100 * value:g}" if self.share else f"{value:g}"


ACCURACY = Measure("accuracy")
R_SQUARED = Measure("R²", share=False)
AVERAGE_PRECISION = Measure("mean average precision")
_OF: dict[Task, Measure] = {
    "classification": ACCURACY, "regression": R_SQUARED, "multi-label": AVERAGE_PRECISION,
}  # fmt: skip


def measure_of(what: Task | Metrics | NumberMetrics | TagMetrics) -> Measure:
    """Of labels of this task, or of these measures."""
    if isinstance(what, str):
        return _OF[what]
    if isinstance(what, NumberMetrics):
        return R_SQUARED
    return AVERAGE_PRECISION if isinstance(what, TagMetrics) else ACCURACY


def measure_in(text: str) -> Measure:
    """The measure that words such as `Ranking.achieved_measure` name: "validation R² in the trial"."""
    return next((one for one in _OF.values() if one.name in text), ACCURACY)

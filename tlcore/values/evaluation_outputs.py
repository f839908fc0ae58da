"""How well a network or a file answers where labels are numbers or tags."""

from __future__ import annotations

from pydantic import Field

from tlcore.values.base import Interval, Value


class NumberMistake(Value):
    """A prediction far from the truth, both in the unit of the labels."""

    sample_id: str
    uri: str
    label: float
    predicted: float


class NumberMetrics(Value):
    """Measures of predicted numbers on one split, with 95 % bootstrap intervals over images.

    `r2` is the share of the variance that is explained, at most 1; the errors are in the unit of the labels.
    """

    images: int
    r2: float
    r2_ci: Interval
    mean_absolute_error: float
    mean_absolute_error_ci: Interval
    root_mean_squared_error: float
    root_mean_squared_error_ci: Interval
    mean: float = Field(description="of the true numbers")
    deviation: float = Field(description="of the true numbers")
    points: tuple[tuple[float, float], ...] = Field(
        (), description="true and predicted number of some images"
    )
    mistakes: tuple[NumberMistake, ...] = Field((), description="the largest errors, the largest first")
    warnings: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The measure that networks are compared by: R^2."""
        return self.r2

    @property
    def score_ci(self) -> Interval:
        return self.r2_ci


class TagMetrics(Value):
    """Measures of predicted tags on one split, with 95 % bootstrap intervals over images (all in [0, 1]).

    F1 scores are of the tags with a probability of at least 0.5.
    """

    images: int
    mean_average_precision: float
    mean_average_precision_ci: Interval
    micro_f1: float
    micro_f1_ci: Interval
    macro_f1: float
    macro_f1_ci: Interval
    per_tag: dict[str, float] = Field({}, description="average precision of tags that occur")
    positives: dict[str, int] = Field({}, description="images that have the tag")
    warnings: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The measure that networks are compared by: mean average precision."""
        return self.mean_average_precision

    @property
    def score_ci(self) -> Interval:
        return self.mean_average_precision_ci

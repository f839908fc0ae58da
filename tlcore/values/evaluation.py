"""How well a network or a file answers."""

from __future__ import annotations

from pydantic import Field

from tlcore.values.base import Interval, Value


class Mistake(Value):
    """A wrong prediction, with the confidence in it."""

    sample_id: str
    uri: str
    label: str
    predicted: str
    probability: float


class Metrics(Value):
    """Measures on one split, with 95 % bootstrap intervals over images (all in [0, 1])."""

    images: int
    accuracy: float
    accuracy_ci: Interval
    balanced_accuracy: float
    balanced_accuracy_ci: Interval
    macro_f1: float
    macro_f1_ci: Interval
    calibration_error: float
    calibration_error_ci: Interval
    per_class: dict[str, float] = Field({}, description="recall per class")
    confusion: tuple[tuple[int, ...], ...] = Field((), description="row: true class; column: predicted class")
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[str, ...] = ()


class Comparison(Value):
    """A baseline against the result on the same test images: paired bootstrap of the accuracy difference."""

    baseline: str
    accuracy: float
    difference: float = Field(description="result minus baseline")
    difference_ci: Interval
    better: bool = Field(description="the whole interval lies above 0")


class Parity(Value):
    """The exported file against the model, on real images through the saved preprocessing."""

    images: int
    max_probability_difference: float
    top1_agreement: float = Field(description="share of images with the same first class, near-ties left out")
    ties: int = Field(
        0, description="images whose two best probabilities are nearer than twice the tolerance"
    )
    accuracy_model: float | None
    accuracy_file: float | None
    tolerance: float
    passed: bool
    worst: tuple[str, ...] = Field((), description="sample_ids with the largest differences")

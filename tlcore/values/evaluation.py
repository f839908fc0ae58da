"""How well a network or a file answers, and how far that may be trusted."""

from __future__ import annotations

from pydantic import Field

from tlcore.values.base import Interval, Task, Value


class Mistake(Value):
    """A wrong prediction, with the confidence in it. Records of earlier versions hold some; see TopLoss."""

    sample_id: str
    uri: str
    label: str
    predicted: str
    probability: float


class TopLoss(Value):
    """An image that the network finds hard: wrong with confidence, or right without."""

    sample_id: str
    uri: str
    label: str
    predicted: str
    probability: float = Field(description="of the predicted class")
    label_probability: float = Field(description="of the class that the label says")
    loss: float = Field(description="-log label_probability, nats")


class ReliabilityBin(Value):
    """The images whose top confidence falls into one bin; empty bins are left out."""

    confidence: float = Field(description="mean over the bin's images")
    accuracy: float
    images: int


class Reliability(Value):
    """Whether probabilities mean what they say, on one set of images."""

    images: int
    log_loss: float = Field(description="mean of -log p[label], nats")
    calibration_error: float = Field(description="expected calibration error, 15 equal-width bins")
    bins: tuple[ReliabilityBin, ...] = ()


class Calibration(Value):
    """A temperature that logits are divided by (Guo et al. 2017), and what it was seen to do.

    Before: as the network answers. After: cross-fitted, each half of the images at the temperature of the other.
    """

    temperature: float = Field(1.0, gt=0, description="1 where none is kept")
    images: int
    nll_before: float = Field(description="mean negative log likelihood, nats")
    nll_after: float
    error_before: float = Field(description="expected calibration error, 15 bins")
    error_after: float
    kept: bool
    why: str = Field(description="why the temperature is kept, or not")


class ClassRow(Value):
    """One class on one split. Precision is None where the class is never predicted."""

    name: str
    images: int = Field(description="that have this label (support)")
    predicted: int = Field(description="images that are answered with this class")
    recall: float
    recall_ci: Interval = Field(description="Wilson's 95 % interval")
    precision: float | None
    precision_ci: Interval | None
    f1: float


class DomainRow(Value):
    """The labelled test images of one domain."""

    domain: str
    images: int
    accuracy: float
    accuracy_ci: Interval = Field(description="Wilson's 95 % interval")


class Suspect(Value):
    """A training image whose label is probably wrong, and the class that it looks like."""

    sample_id: str
    uri: str
    label: str
    suggested: str
    self_confidence: float = Field(description="out-of-fold probability of the label")
    suggested_probability: float


class LabelErrors(Value):
    """Confident learning (Northcutt, Jiang & Chuang 2021) on out-of-fold predictions of the labelled training images."""

    images: int
    found_by: str = Field("", description="whose out-of-fold predictions")
    agreement: float = Field(description="share of the labels that these predictions answer with")
    error_share: float = Field(description="estimated share of wrong labels, off the diagonal of the joint")
    error_share_ci: Interval | None = None
    counts: tuple[tuple[int, ...], ...] = Field(
        (), description="confident joint; row: given label, column: likely class; classes in encoded order"
    )
    found: int = Field(description="images off the diagonal whose likely class is the more probable")
    suspects: tuple[Suspect, ...] = Field((), description="the first of those found, most certain first")
    notes: tuple[str, ...] = ()


class Metrics(Value):
    """Measures on one split, with 95 % bootstrap intervals over images (all but `log_loss` in [0, 1])."""

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
    reliability: Reliability | None = None
    classes: tuple[ClassRow, ...] = Field((), description="classes that have a test image, in encoded order")
    top_losses: tuple[TopLoss, ...] = Field((), description="largest first")

    @property
    def score(self) -> float:
        """The measure that networks are compared by: accuracy."""
        return self.accuracy

    @property
    def score_ci(self) -> Interval:
        return self.accuracy_ci


class Comparison(Value):
    """A baseline against the result on the same test images: paired bootstrap of the accuracy difference."""

    baseline: str
    accuracy: float = Field(description="of the baseline; where labels are no classes its `measure`")
    difference: float = Field(description="result minus baseline; of errors, baseline minus result")
    difference_ci: Interval
    better: bool = Field(description="the whole interval lies above 0")
    measure: str = Field("accuracy", description='else "mean absolute error" or "F1 per image"')


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
    task: Task = Field(
        "classification",
        description="regression: the difference is in deviations of the model's answers; multi-label: the agreement is that "
        "of tags at 0.5",
    )

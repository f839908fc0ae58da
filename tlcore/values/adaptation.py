"""The gap between two domains, and what adapters made of it."""

from __future__ import annotations

from pydantic import Field

from tlcore.values.base import Interval, Value
from tlcore.values.models import Epoch


class AccuracyEstimates(Value):
    """What calibrated confidences say about the accuracy on unlabelled target images, in [0, 1] each."""

    atc_confidence: float = Field(description="ATC with the largest probability (Garg et al. 2022)")
    atc_entropy: float = Field(description="ATC with the negative entropy")
    difference_of_confidences: float = Field(description="DoC (Guillory et al. 2021)")
    temperature: float = Field(description="that calibrates the source validation images")
    low: float = Field(description="lowest of the three")
    high: float = Field(description="highest of the three")


class Adapted(Value):
    """One adapter's outcome. The three target accuracies are None where the target's test split has no labels.

    `accuracy` is at the checkpoint that the label-free validators chose, `accuracy_last` at the last one,
    `accuracy_oracle` at the best one had one peeked at the test labels (shown to be seen, used for nothing).
    """

    strategy: str
    validator_score: float = Field(
        description="of all validators together, in [0, 1] where there are several"
    )
    validators: dict[str, float] = Field({}, description="each validator's own score")
    source_validation_accuracy: float
    target_only: bool = Field(
        False, description="the network is for the target alone; its source accuracy means nothing"
    )
    accuracy: float | None = None
    accuracy_ci: Interval | None = None
    accuracy_last: float | None = None
    accuracy_oracle: float | None = None
    estimates: AccuracyEstimates | None = None
    predicted_classes: int = Field(0, description="classes that occur among the target predictions")
    nuclear_norm: float = Field(
        0.0, description="of the target probabilities, over the number of images (BNM)"
    )
    top_share: float = Field(
        0.0, description="share of the target images that the most frequent prediction takes"
    )
    cluster_agreement: float | None = Field(
        None,
        description="of the predictions with clusters of the target's features (adjusted mutual information)",
    )
    seconds: float = 0.0
    history: tuple[Epoch, ...] = ()
    stopped: str = Field("", description="where and why training ended early")
    verdict: str = Field("", description="the gate's, in one sentence")
    refused: str | None = Field(None, description="why it is not sound for this target; it was not tried")
    failed: str | None = None


class DomainGap(Value):
    """How far the target lies from the source, before anything is adapted. Features are the source-only model's.

    a_distance: proxy A-distance, 0 (one domain) … 2 (told apart without an error), of each source domain.
    coral: squared Frobenius distance of the covariances over 4 d^2; mmd: squared, several Gaussian kernels.
    """

    label_sets: str
    declared: bool = Field(description="somebody said so; else it is assumed")
    missing_classes: tuple[str, ...] = ()
    new_classes: tuple[str, ...] = ()
    a_distance: dict[str, float] = {}
    domain_error: float = Field(0.5, description="held-out error of telling source from target")
    coral: float = 0.0
    mmd: float = 0.0
    mmd_p: float = Field(1.0, description="share of random partings of the same images with an MMD as large")
    source_shares: dict[str, float] = Field({}, description="per class, of the source's training images")
    predicted_shares: dict[str, float] = Field(
        {}, description="per class, as source-only predicts the target"
    )
    label_shares: dict[str, float] = Field({}, description="per class, of the target's labelled test images")
    duplicates: int = Field(0, description="files of the same bytes in both domains")
    duplicate_examples: tuple[str, ...] = ()
    source_examples: tuple[str, ...] = Field((), description="uris")
    target_examples: tuple[str, ...] = Field((), description="uris")
    notes: tuple[str, ...] = ()


class Point(Value):
    """An image in a plane of two dimensions; `label` is its class, or the predicted one where there is no label."""

    x: float
    y: float
    domain: str
    label: str


class Scatter(Value):
    """The features of the same images before and after adaptation, each in its own plane (t-SNE)."""

    before: tuple[Point, ...]
    after: tuple[Point, ...]


class Adaptation(Value):
    """Source-only against every adapter tried, what was kept and the rule that kept it."""

    source_only: Adapted
    tried: tuple[Adapted, ...]
    kept: str
    validator: str = Field(description='the validators, joined by " + "')
    reason: str
    target_images: int
    gap: DomainGap | None = None
    scatter: Scatter | None = None

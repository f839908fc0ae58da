"""What single stages leave in the store beside their files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tlcore.values import (
    Adapted,
    Calibration,
    Candidate,
    Checkpoint,
    Comparison,
    DataReport,
    DomainRow,
    Interval,
    LabelErrors,
    Metrics,
    NumberMetrics,
    Ref,
    Reliability,
    SearchResult,
    TagMetrics,
    Task,
    Value,
)

__all__ = [
    "FLOAT32_ENGINES",
    "AdaptedModel",
    "CandidateList",
    "CheckedData",
    "DecodedImages",
    "Embedded",
    "Evaluation",
    "FeatureFiles",
    "LoadedData",
    "PixelFiles",
    "Trained",
]


FLOAT32_ENGINES = frozenset({"eager", "folded", "onnxruntime"})
"""Engines whose features are those of the network in float32, but for rounding."""


class LoadedData(Value):
    """The table as it was found: table.parquet."""

    name: str
    classes: tuple[str, ...]
    rows: int
    fingerprint: str
    task: Task = "classification"


class CheckedData(Value):
    """The table that the run works on, every split filled in: table.parquet."""

    name: str
    classes: tuple[str, ...]
    rows: int
    fingerprint: str
    has_target: bool
    report: DataReport
    given_splits: tuple[str, ...] = Field((), description="of the source, that the data came with")
    task: Task = "classification"


class CandidateList(Value):
    entries: tuple[Candidate, ...]


class PixelFiles(Value):
    """uint8 pixels by one decode rule: an entry of the store for each rule, so that another model with another
    input size leaves these as they are.

    "exact": of all rows in table order. "scoring": of the rows in rows.npy (int64 [images], ascending), decoded
    fast and nearly the same (tlcore.data.scoring_pixels); nothing but scores may look at them.
    """

    rule: str
    file: str
    images: int
    purpose: Literal["exact", "scoring"] = "exact"


class DecodedImages(Value):
    """Where the pixels of every rule are."""

    pixels: dict[str, Ref]


class FeatureFiles(Value):
    """Features of (a stratified sample of) the labelled training images, or of a shard of them: see
    tlcore.features.files. Of merged shards: the moments of all, and where the features are."""

    images: int
    dim: int
    complete: bool = Field(description="all labelled training images, not a sample")
    images_per_second: float = Field(description="of one worker; setting the network up is left out")
    seconds: float = Field(description="that the batches took, of all shards together")
    source_head: bool
    shards: tuple[Ref, ...] = Field((), description="in the images' order; none: the features lie here")
    engine: str = Field(
        "folded", description="of tlcore.features.engines; several, as shards may take: joined by +"
    )
    engine_note: str = Field("", description="why that is not the engine that was to run")


class Trained(Value):
    """A trained network: weights.safetensors, and predictions.npz (rows int64 [n], probabilities float32 [n, K])
    of all images outside the training splits."""

    checkpoint: Checkpoint
    validation: float = Field(description="accuracy on labelled source validation images")
    seconds: float
    calibration: Calibration | None = Field(None, description="of its validation or out-of-fold predictions")
    validated_on: str = Field("", description='"5-fold cross-validation, 50 images", "held-out, 120 images"')
    validation_ci: Interval | None = None
    search: SearchResult | None = Field(None, description="where its options were searched")


class Embedded(Value):
    """The backbone's features of every row of the table: features.npy, float32 [rows, dim]."""

    rows: int
    dim: int


class AdaptedModel(Value):
    """An adapted network, files as for `Trained`, beside the source-only model it started from."""

    checkpoint: Checkpoint
    adapted: Adapted
    source_only: Adapted
    target_images: int


class SourceOnlyModel(Value):
    """How the source-only model looks from the target's side, where no adapter finished that could have said so."""

    source_only: Adapted
    target_images: int


class Evaluation(Value):
    """The result on test images that nothing was chosen on."""

    metrics: Metrics | NumberMetrics | TagMetrics
    baselines: tuple[Comparison, ...]
    domain: str
    classes: tuple[str, ...] = Field(description="names of the confusion matrix's rows and columns")
    warnings: tuple[str, ...] = ()
    calibration: Calibration | None = Field(None, description="of the trained network, on validation images")
    uncalibrated: Reliability | None = Field(
        None, description="of the same test images without the temperature, where there is one"
    )
    label_errors: LabelErrors | None = Field(
        None, description="among the training labels, by out-of-fold predictions"
    )
    domains: tuple[DomainRow, ...] = Field(
        (), description="labelled test images by domain, where there are several"
    )
    strategy: str = Field("", description='of the result: "lp-ft", and "lp-ft+dann" where it was adapted')

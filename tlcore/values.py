"""The frozen values that cross from one stage to the next.

Small values are pydantic models and travel as JSON. Tables and arrays stay in files of the run
store; what travels for them is a `Ref`. Importing this module costs no torch, no polars, no timm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "SOURCE", "SOURCE_ONLY", "TARGET", "UNLABELLED", "AccuracyEstimates", "Adaptation", "Adapted", "Bottleneck", "Candidate",
    "Checkpoint", "Chosen", "Comparison", "DataReport", "Dataset", "DomainGap", "Epoch", "Exported", "Halving",
    "Interval", "Json", "Metrics", "Mistake", "Parity", "Point", "Preprocess", "Problem", "Ranked", "Ranking", "Ref",
    "RunRecord", "Rung", "Scatter", "Trial", "Value",
]  # fmt: skip

SOURCE = "source"
"""Domain of the rows that a run learns from."""
TARGET = "target"
"""Domain of the rows whose labels, where there are any, are used for the final test alone."""
SOURCE_ONLY = "source-only"
"""The chosen model before it was adapted to the target."""
UNLABELLED = -1
"""Encoded label of a row without one."""

Split = Literal["train", "val", "test"]
Json = Any


class Value(BaseModel):
    """Base of all JSON values: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


class Ref(Value):
    """A finished stage result in the run store.

    `path` is relative to the store, so that a store can be moved; `key` is the content-address of
    everything that went into the stage.
    """

    stage: str
    key: str
    path: str


class Interval(Value):
    """A two-sided interval, inclusive."""

    low: float
    high: float


class Preprocess(Value):
    """How an image becomes the network's input, saved with every model so that all readers agree.

    1. decode, apply the EXIF orientation, convert to RGB;
    2. `resize="crop"`: resize (antialiased) so that the shorter side is round(side / crop_pct), cut the centre
       height x width; `resize="squash"`: resize to height x width without keeping the ratio;
    3. uint8 [height, width, 3] goes into the file; (x / 255 - mean) / std happens in the graph.
    """

    height: int = Field(ge=8, le=4096, description="pixels")
    width: int = Field(ge=8, le=4096, description="pixels")
    resize: Literal["crop", "squash"] = "crop"
    crop_pct: float = Field(0.875, gt=0, le=1)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def decoding(self) -> Preprocess:
        """The part that decides about pixels: normalisation, which happens in the graph, left at its default."""
        kept = ("height", "width", "resize", "crop_pct", "interpolation")
        return Preprocess(**{name: getattr(self, name) for name in kept})

    def decode_key(self) -> str:
        """Name of the decoded pixels: equal for all models that may share one decode pass."""
        return f"{self.height}x{self.width}-{self.resize}-{self.crop_pct:g}-{self.interpolation}"


class Candidate(Value):
    """A source model that could be transferred, or one that had to be left out, with the reason.

    Attributes:
        name: unique in a run, as shown to people: "mobilenetv2_100", "timm:resnet18".
        source: the {name, options} of the model source that can build it.
        architecture: the architecture name that timm knows.
        arguments: keyword arguments of `timm.create_model` (padding type, …).
        weights: file path, "hub", or None for a random initialisation.
        weights_sha256: digest of the weights' content ("" while unknown or absent).
        classes: outputs of the source head; 0 when the weights carry no head.
        params: parameters without the head; None while unknown.
        gmacs: billions of multiply-accumulates for one image of the input size; None while unknown.
        onnx_bytes: estimated size of its exported file without the head; None while unknown.
        prior: published ImageNet top-1 accuracy in percent where the source knows it.
        skipped: why it takes no part, or None.
    """

    name: str
    source: dict[str, Json]
    architecture: str
    arguments: dict[str, Json] = {}
    weights: str | None = None
    weights_sha256: str = ""
    classes: int = 0
    preprocess: Preprocess | None = None
    params: int | None = None
    gmacs: float | None = None
    onnx_bytes: int | None = None
    prior: float | None = None
    licence: str = "unknown"
    pretrained_on: str = "unknown"
    skipped: str | None = None

    def recipe(self) -> dict[str, Json]:
        """The document without its cost and prior: what features and trainings depend on, and are found again by."""
        return self.model_dump(mode="json", exclude={"gmacs", "onnx_bytes", "prior"})


class Problem(Value):
    """One finding of a data check: how often, and a few examples by name."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()
    rows: tuple[str, ...] = Field((), description="sample_ids that cannot be used; the host drops them")


class DataReport(Value):
    """What a data check found, and what is left after unusable rows are gone."""

    problems: tuple[Problem, ...] = ()
    rows: int = 0
    dropped: int = 0
    classes: tuple[str, ...] = ()
    counts: dict[str, dict[str, int]] = Field({}, description='rows per "domain/split" and class')
    sizes: dict[str, float] = Field({}, description="pixels: min/median/max of width and height")
    modes: dict[str, int] = Field({}, description="images per Pillow mode")

    def source_images(self, split: str) -> int:
        """Images of a split in all source domains together."""
        here = {
            place.rpartition("/")[0]: sum(n.values())
            for place, n in self.counts.items()
            if place.endswith(f"/{split}")
        }
        return sum(images for domain, images in here.items() if domain != TARGET)


@dataclass(frozen=True)
class Dataset:
    """A table of images with its classes.

    `table` columns: sample_id (str, unique), uri (str, absolute path), label (str or null),
    split ("train" | "val" | "test" or null), domain (str), sha256 (str, of the file's bytes).
    `classes` are the sorted class names; the position is the encoded label.
    """

    name: str
    table: pl.DataFrame
    classes: tuple[str, ...]

    COLUMNS = ("sample_id", "uri", "label", "split", "domain", "sha256")

    @property
    def fingerprint(self) -> str:
        """Content address: classes and every row (bytes, label, split, domain); paths do not count."""
        import hashlib

        digest = hashlib.sha256("\x1f".join(self.classes).encode())
        rows = self.table.select("sample_id", "label", "split", "domain", "sha256").sort("sample_id").rows()
        for row in rows:
            digest.update("\x1f".join("" if cell is None else str(cell) for cell in row).encode())
            digest.update(b"\x1e")
        return digest.hexdigest()

    def rows(self, *, split: str | None = None, domain: str | None = None) -> pl.DataFrame:
        """The rows of one split and domain, in table order. SOURCE stands for all source domains together."""
        import polars as pl

        table = self.table
        if split is not None:
            table = table.filter(pl.col("split") == split)
        if domain is not None:
            is_target = pl.col("domain") == TARGET
            table = table.filter(
                is_target
                if domain == TARGET
                else ~is_target
                if domain == SOURCE
                else pl.col("domain") == domain
            )
        return table

    def labels(self, table: pl.DataFrame | None = None) -> list[int]:
        """Encoded labels of `table` (default: all rows); UNLABELLED where there is none."""
        code = {name: index for index, name in enumerate(self.classes)}
        column = (self.table if table is None else table)["label"].to_list()
        return [UNLABELLED if name is None else code[name] for name in column]

    def without_target_labels(self) -> Dataset:
        """The same rows as training may see them: every label of the target domain is null."""
        import polars as pl

        hidden = pl.when(pl.col("domain") == TARGET).then(None).otherwise(pl.col("label")).alias("label")
        return replace(self, table=self.table.with_columns(hidden))

    @property
    def source_domains(self) -> tuple[str, ...]:
        """Names of the labelled domains, sorted; SOURCE where there is one."""
        return tuple(sorted({name for name in self.table["domain"].unique() if name != TARGET}))

    @property
    def has_target(self) -> bool:
        return bool((self.table["domain"] == TARGET).any())


class Ranked(Value):
    """One candidate's place. Equal `rank` means that the scores cannot tell them apart."""

    candidate: str
    rank: int | None = Field(description="1 is best; None when skipped or failed")
    scores: dict[str, float] = {}
    spread: dict[str, Interval] = Field({}, description="95 % interval over images, per scorer")
    draws: dict[str, tuple[float | None, ...]] = Field(
        {},
        description="the score on each subset of the images, per scorer; the same subsets for all candidates",
    )
    draw_scale: dict[str, float] = Field(
        {},
        description="from the deviations of `draws` to those over new images of the same number, per scorer",
    )
    panel: float | None = Field(
        None, description="mean over the scorers of rank / (candidates + 1); lower is better"
    )
    rank_interval: Interval | None = Field(None, description="95 % interval of the rank over images")
    tied_with_best: bool = Field(False, description="the images cannot tell it from the best one")
    notes: tuple[str, ...] = ()
    params: int | None = None
    gmacs: float | None = None
    prior: float | None = None
    prior_rank: int | None = Field(
        None, description="place by the static prior alone: a baseline, never mixed in"
    )
    images_per_second: float | None = None
    engine: str = Field(
        "", description='that computed the features; several, where shards took different ones: "bf16+folded"'
    )
    latency_ms: float | None = Field(None, description="one image by onnxruntime, where it was measured")
    onnx_bytes: int | None = Field(None, description="estimated size of the exported file")
    licence: str = "unknown"
    achieved: float | None = Field(
        None, description="accuracy after fine-tuning, where it was measured: see Ranking.achieved_measure"
    )
    skipped: str | None = None


class Ranking(Value):
    """Candidates from best to worst, the skipped ones last."""

    entries: tuple[Ranked, ...]
    scorers: tuple[str, ...]
    images: int
    shortlist: tuple[str, ...] = Field((), description="best first: those that cannot be told from the best")
    prior: str = Field("", description='what the static prior is: "ImageNet top-1 from FILE", "parameters"')
    achieved_measure: str = Field(
        "", description='what `achieved` of the entries is: "test accuracy after lp-ft"; empty without any'
    )

    @property
    def best(self) -> str:
        return next(entry.candidate for entry in self.entries if entry.rank is not None)


class Epoch(Value):
    """One line of a training history. Losses are means over the epoch's batches."""

    phase: str
    epoch: int
    losses: dict[str, float] = {}
    measures: dict[str, float] = Field({}, description="validation accuracy, validator scores")
    seconds: float = 0.0


class Bottleneck(Value):
    """A layer of `width` units between backbone and head, and the share of them that is dropped while training."""

    width: int = Field(256, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)


class Checkpoint(Value):
    """A trained network: how to build it again, where its weights are, how it came about.

    `weights` is a safetensors file, relative to the stage folder that holds this value.
    """

    candidate: Candidate
    classes: tuple[str, ...]
    preprocess: Preprocess
    weights: str
    strategy: str
    bottleneck: Bottleneck | None = None
    chosen_epoch: int | None = None
    chosen_by: str = "last"
    history: tuple[Epoch, ...] = ()
    measures: dict[str, float] = {}
    resumed_from_step: int | None = None


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


class Exported(Value):
    """An exported file; `path` is relative to the stage folder that holds this value."""

    path: str
    format: str
    bytes: int
    opset: int | None = None
    sha256: str = ""


class Trial(Value):
    """One trained network that could have been chosen. `measures` are on validation data."""

    candidate: str
    strategy: str
    validation: float = Field(description="the number that choices are made by: validation accuracy")
    test: float | None = Field(None, description="test accuracy; shown, never chosen by")
    seconds: float = 0.0
    history: tuple[Epoch, ...] = ()


class Rung(Value):
    """One short fine-tune of the trial that decides between candidates which scores cannot tell apart.

    `seconds` is what the training took when it was computed, also where it came from the store this time.
    """

    candidate: str
    rung: int = Field(ge=1, description="1 is the shortest")
    epochs: int = Field(ge=1)
    validation: float | None = Field(None, description="validation accuracy; None where the training failed")
    images: int | None = Field(None, description="validation images; None: unknown")
    loss: float | None = Field(None, description="validation loss")
    seconds: float = 0.0
    survived: bool = Field(False, description="it went on to the next rung, or was chosen")
    failed: str | None = None


class Halving(Value):
    """A trial by successive halving: what was tried, what survived, and why it ended."""

    strategy: str
    budget_seconds: float
    shortlist: tuple[str, ...] = Field(description="in the order of the ranking")
    rungs: tuple[Rung, ...] = Field(description="in the order of trying")
    winner: str
    reason: str = Field(description="why it ended there")

    @property
    def seconds(self) -> float:
        """What the short fine-tunes took together."""
        return sum(rung.seconds for rung in self.rungs)


class Comparison(Value):
    """A baseline against the result on the same test images: paired bootstrap of the accuracy difference."""

    baseline: str
    accuracy: float
    difference: float = Field(description="result minus baseline")
    difference_ci: Interval
    better: bool = Field(description="the whole interval lies above 0")


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


class Chosen(Value):
    candidate: str
    strategy: str


class RunRecord(Value):
    """Everything a run has to say: what the run card shows and `tlcore run --json` prints (a part of)."""

    run_id: str
    name: str
    created: str = Field(description="UTC, ISO 8601")
    data: DataReport
    thumbnails: dict[str, str] = Field({}, description="uri by sample_id, for the worst mistakes")
    ranking: Ranking
    chosen: Chosen
    metrics: Metrics
    baselines: tuple[Comparison, ...]
    trials: tuple[Trial, ...]
    halving: Halving | None = None
    adaptation: Adaptation | None
    parity: Parity
    exported: Exported
    onnx: str
    card: str
    seconds: dict[str, float]
    cached: tuple[str, ...]
    config: dict[str, Json]
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()

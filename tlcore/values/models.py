"""Source models, how images become their input, and trained networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tlcore.values.base import Json, Task, Value


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
    norm: bool = Field(True, description="batch norm before the ReLU")


class Head(Value):
    """How the head's input x [d] becomes logits [K].

    "linear": W x + b. "unit": W z + b with z = (x - c) / |x - c|, the cosine of directions around the centre c.
    "neighbours": log of the share that each class has among the k stored directions nearest to z, each weighted by
    exp(cosine / temperature) and every class given a share of `floor` / K beforehand.
    """

    kind: Literal["linear", "unit", "neighbours"] = "linear"
    images: int = Field(0, ge=0, description="stored directions; neighbours")
    neighbours: int = Field(0, ge=0, description="k; neighbours")
    temperature: float = Field(0.07, gt=0, description="of the votes; neighbours")
    floor: float = Field(0.01, gt=0, lt=1, description="share that is spread over all classes; neighbours")


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
    head: Head = Head()
    task: Task = "classification"
    temperature: float = Field(
        1.0,
        gt=0,
        description="that logits are divided by to be calibrated (Guo et al. 2017); 1: left as they are",
    )
    notes: tuple[str, ...] = Field((), description="what training decided by itself, for people")
    chosen_epoch: int | None = None
    chosen_by: str = "last"
    history: tuple[Epoch, ...] = ()
    measures: dict[str, float] = {}
    resumed_from_step: int | None = None


class Exported(Value):
    """An exported file; `path` is relative to the stage folder that holds this value."""

    path: str
    format: str
    bytes: int
    opset: int | None = None
    sha256: str = ""

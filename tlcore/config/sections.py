"""The sections of a run's configuration, with their bounds and defaults."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from tlcore.config.choices import (
    Choice,
    DataChoice,
    ModelChoice,
    Section,
    StrategyChoice,
    TargetChoice,
    several,
)
from tlcore.config.durations import parse_seconds
from tlcore.values import Json

__all__ = [
    "AdaptConfig", "ComputeConfig", "DataConfig", "EvaluationConfig", "ExportConfig", "FinetuneConfig", "ListingConfig",
    "RunConfig", "SearchConfig", "SelectionConfig",
]  # fmt: skip


class DataConfig(Section):
    """Which images, and how they are checked and split."""

    model_config = ConfigDict(title="Data")

    source: DataChoice = Field(title="Images", description="folder, CSV or Parquet manifest, or NAME:PATH")
    target: TargetChoice | None = Field(
        None,
        title="Target images",
        description="unlabelled images of the domain that matters; labels found there serve the final test alone",
    )
    target_domain: str = Field(
        "target",
        min_length=1,
        title="Target domain",
        description="which domain of the table is the target; all others are labelled sources",
    )
    target_classes: Annotated[tuple[str, ...] | None, BeforeValidator(several)] = Field(
        None, title="Target classes", description="that occur among the target images, where somebody knows"
    )
    check: Choice = Field(StrategyChoice(name="image-table"), title="Check")
    validation: float = Field(
        0.15,
        gt=0,
        lt=0.9,
        title="Validation share",
        description="share of the training images that is set aside, where no val split is given",
    )
    test: float = Field(
        0.2,
        gt=0,
        lt=0.9,
        title="Test share",
        description="share of the training images that is set aside, where no test split is given",
    )
    max_bad_share: float = Field(
        0.01,
        ge=0,
        le=1,
        title="Unusable share",
        description="share of unusable images up to which a run goes on without them",
    )
    max_pixels: int = Field(
        100_000_000,
        ge=4096,
        title="Largest image",
        description="pixels (width x height); larger files are not decoded",
    )


PANEL = ("logme", "knn", "logistic-probe", "parc")
"""Scorers of different families that together chose best in benchmarks/selection.py (DECISIONS, 11)."""


class SelectionConfig(Section):
    """How source models are ranked."""

    model_config = ConfigDict(title="Selection")

    scorers: tuple[Choice, ...] = Field(
        tuple(StrategyChoice(name=name) for name in PANEL),
        min_length=1,
        title="Scorers",
        description="the ranking goes by the mean of their ranks",
    )
    shortlist: int = Field(
        3,
        ge=1,
        le=64,
        title="Shortlist",
        description="at most so many candidates that cannot be told from the best go on",
    )
    trial: Literal["none", "halving"] = Field(
        "halving",
        title="Trial",
        description="halving: short fine-tunes of the shortlist, the better half trained longer, until one is left; "
        "none: all of the shortlist are fine-tuned in full, the best on validation is chosen",
    )
    trial_seconds: float = Field(
        60,
        gt=0,
        le=86_400,
        title="Trial budget",
        description="seconds that the short fine-tunes may take together",
    )
    max_params: float | None = Field(
        None, gt=0, title="Largest model", description="millions of parameters, head not counted"
    )
    max_gmacs: float | None = Field(
        None, gt=0, title="Most work", description="billions of multiply-accumulates per image"
    )
    max_latency_ms: float | None = Field(
        None,
        gt=0,
        title="Longest latency",
        description="milliseconds for one image by onnxruntime on this machine, measured",
    )
    licences: tuple[str, ...] = Field(
        (),
        title="Licences",
        description="licences of weights that may be used (SPDX names, * allowed); none given: any",
    )
    results: str | None = Field(
        None,
        title="Result table",
        description="CSV with columns model and top1 (timm's results-imagenet.csv): the static prior",
    )
    verify: bool = Field(
        False,
        title="Verify the ranking",
        description="fine-tune every candidate and show it beside its scores; nothing is chosen by it",
    )
    verify_with: Choice = Field(
        StrategyChoice(name="lp-ft"),
        title="Verify with",
        description="the strategy that `verify` fine-tunes every candidate with",
    )
    replicates: int = Field(
        20, ge=0, le=200, title="Replicates", description="resamples behind a score's interval; 0 for none"
    )
    max_images: int = Field(
        5000,
        ge=10,
        title="Images",
        description="labelled training images that scores may look at, a stratified sample where there are more",
    )
    engine: Literal["auto", "eager", "folded", "bf16", "onnxruntime", "compiled"] = Field(
        "auto",
        title="Engine",
        description="how features are computed; auto: the fastest by a cost model, checked against eager fp32",
    )


def _ordered(bounds: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    for name, (low, high) in bounds.items():
        if not low < high:
            raise ValueError(f"the bounds of {name} are from {low:g} to {high:g}: write [low, high]")
    return bounds


_Bound = Annotated[float, Field(allow_inf_nan=False)]


class SearchConfig(Section):
    """A search over a strategy's own options, by validation."""

    model_config = ConfigDict(title="Search")

    trials: int = Field(
        0,
        ge=0,
        le=1000,
        title="Trials",
        description="trainings that a strategy's options are searched with, the first with those that were given; "
        "below 2: no search",
    )
    fields: Annotated[tuple[str, ...], BeforeValidator(several)] = Field(
        (), title="Searched options", description="none given: those that the strategy itself names"
    )
    bounds: Annotated[dict[str, tuple[_Bound, _Bound]], AfterValidator(_ordered)] = Field(
        {},
        title="Search bounds",
        description="inside the option's own, which are searched where none are given, as in lr=[1e-5, 1e-3]",
    )


class FinetuneConfig(Section):
    """How the best candidates are trained on labelled images. The best strategy on validation is kept."""

    model_config = ConfigDict(title="Fine-tuning")

    strategies: tuple[Choice, ...] = Field(
        (StrategyChoice(name="linear-probe"), StrategyChoice(name="auto")),
        min_length=1,
        alias="try",
        title="Strategies",
        description="tried in turn; ties keep the earlier one",
    )
    budget: Annotated[float | None, BeforeValidator(parse_seconds)] = Field(
        None,
        gt=0,
        le=604_800,
        allow_inf_nan=False,
        title="Training budget",
        description="that each training may take, and each search with all its trials: seconds, or 90s, 10m, 1h30m",
    )
    validation: Literal["auto", "held-out", "cross-validation"] = Field(
        "auto",
        title="Validate by",
        description="images set aside, or all training images in turn; auto: by the size of the data",
    )
    folds: int = Field(5, ge=2, le=20, title="Folds", description="of cross-validation")
    search: SearchConfig = SearchConfig()
    soup: bool = Field(
        False,
        title="Soup",
        description="average the weights of a search's trials, greedily, where validation is not worse (Wortsman et al. 2022)",
    )

    @model_validator(mode="after")
    def _soup_needs_trials(self) -> Self:
        if self.soup and self.search.trials < 2:
            raise ValueError("a soup is made of the trials of a search: set search.trials (--trials 10)")
        return self


class AdaptConfig(Section):
    """How the gap to unlabelled target images is closed. Source-only is always a candidate."""

    model_config = ConfigDict(title="Adaptation")

    strategies: Annotated[tuple[Choice, ...], BeforeValidator(several)] = Field(
        (StrategyChoice(name="mcc"),),
        alias="try",
        title="Strategies",
        description="adapters that are tried where there are target images",
    )
    validators: Annotated[tuple[Choice, ...], BeforeValidator(several)] = Field(
        (StrategyChoice(name="im"), StrategyChoice(name="bnm")),
        min_length=1,
        title="Validators",
        description="choose checkpoints and adapters without target labels; several: the mean of their scores",
    )
    source_floor: float = Field(
        0.05,
        ge=0,
        le=1,
        title="Source accuracy floor",
        description="how much source validation accuracy adaptation may cost",
    )
    label_sets: Literal["auto", "closed", "partial", "open", "open-partial"] = Field(
        "auto",
        title="Target classes",
        description="those of the source (closed), fewer (partial), new ones too (open); auto: from data.target_classes, "
        "else closed",
    )
    max_images: int = Field(
        1000,
        ge=2,
        title="Target sample",
        description="target images outside the test split that validators look at",
    )


class EvaluationConfig(Section):
    """How the result is measured."""

    model_config = ConfigDict(title="Evaluation")

    replicates: int = Field(1000, ge=100, le=100_000, title="Bootstrap replicates")
    scratch: Choice = Field(
        StrategyChoice(name="full", options={"epochs": 6}),
        title="From-scratch baseline",
        description="the strategy that trains the chosen network from a random initialisation",
    )


class ExportConfig(Section):
    """What leaves, and what it must prove."""

    model_config = ConfigDict(title="Export")

    exporter: Choice = Field(StrategyChoice(name="onnx"), title="Exporter")
    tolerance: float = Field(
        1e-3,
        gt=0,
        le=0.1,
        title="Tolerance",
        description="largest probability difference between file and model",
    )
    calibrate: bool = Field(
        True,
        title="Calibrate",
        description="put the temperature that was fitted on validation images into the file; the first class stays",
    )


class ComputeConfig(Section):
    """Where candidates and shards of images are worked on."""

    model_config = ConfigDict(title="Compute")

    runner: Literal["sequential", "threads", "dask", "ray"] = Field(
        "sequential",
        title="Task runner",
        description="sequential: one candidate after another through all cores; dask and ray: extras of these names",
    )
    workers: int = Field(
        2, ge=1, le=4096, title="Workers", description="threads, or processes of a local cluster"
    )
    address: str | None = Field(
        None,
        title="Cluster",
        description="address of a running Dask or Ray cluster; none: a local one is started",
    )
    shards: int = Field(
        1,
        ge=1,
        le=10_000,
        title="Shards",
        description="parts that the images are worked on in, per candidate",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        title="Training precision",
        description="bf16: forward passes on images; auto: where that is measured to be faster and agrees with fp32",
    )
    processes: int = Field(
        1, ge=1, le=64, title="Training processes", description="that share each training, by accelerate"
    )
    launch: str = Field(
        "",
        title="Launch",
        description="further arguments of accelerate launch, such as --num_machines 2 --main_process_ip HOST",
    )


class RunConfig(Section):
    """One run: data, candidates, and every choice on the way to a proven file."""

    model_config = ConfigDict(title="tlcore run")

    name: str = Field(
        "run", min_length=1, max_length=80, title="Name", description="shown in lists and on the run card"
    )
    data: DataConfig
    models: Annotated[tuple[ModelChoice, ...], BeforeValidator(several)] = Field(
        min_length=1,
        title="Source models",
        description="timm:NAME, timm:GLOB, local:FOLDER, local:FILE or NAME:SPEC of a plugin",
    )
    selection: SelectionConfig = SelectionConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    adapt: AdaptConfig = AdaptConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    compute: ComputeConfig = ComputeConfig()
    seed: int = Field(0, ge=0, lt=2**31, title="Seed")
    threads: int = Field(0, ge=0, le=1024, title="Threads", description="processor threads; 0: all cores")
    device: str = Field(
        "cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$", title="Device", description="cpu, cuda, cuda:N or mps"
    )

    def document(self) -> dict[str, Json]:
        """The configuration as plain JSON, every default filled in."""
        return self.model_dump(mode="json", by_alias=True)


class ListingConfig(Section):
    """Source models to list, and the limits that filter them; as in RunConfig."""

    models: tuple[ModelChoice, ...]
    selection: SelectionConfig = SelectionConfig()

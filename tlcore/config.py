"""RunConfig: the one boundary where text becomes types.

A run file is TOML with the sections below; relative paths in it are relative to the file. Flags of
the command line override it. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tlcore.errors import UserError
from tlcore.values import Json

__all__ = [
    "AdaptConfig", "ComputeConfig", "DataConfig", "EvaluationConfig", "ExportConfig", "FinetuneConfig", "RunConfig",
    "SelectionConfig", "StrategyChoice", "data_choice", "load_run_file", "model_choice", "parse_config", "parse_listing",
]  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class StrategyChoice(_Section):
    """A strategy by name, with its options: "lp-ft", or {name = "lp-ft", epochs = 20}."""

    name: str = Field(title="Strategy", description="a name from `tlcore plugins`")
    options: dict[str, Json] = Field({}, title="Options", description="see `tlcore plugins show NAME`")


def _choice(given: Any) -> Any:
    if isinstance(given, str):
        return {"name": given}
    if isinstance(given, Mapping):
        loose = {key: value for key, value in given.items() if key not in {"name", "options"}}
        return {"name": given.get("name"), "options": {**given.get("options", {}), **loose}}
    return given


def data_choice(text: str) -> dict[str, Any]:
    """PATH or NAME:PATH -> a data source: a folder is `image-folder`, a CSV or Parquet file is `manifest`."""
    name, colon, rest = text.partition(":")
    if colon and len(name) > 1 and "/" not in name and "\\" not in name:
        return {"name": name, "options": {"path": rest}}
    manifest = text.lower().endswith((".csv", ".parquet", ".pq"))
    return {"name": "manifest" if manifest else "image-folder", "options": {"path": text}}


def model_choice(text: str) -> dict[str, Any]:
    """NAME:SPEC -> a model source: "timm:resnet18", "timm:mobilenetv3_*", "local:FOLDER", "local:FILE".

    Raises:
        ValueError: no source name before the colon.
    """
    name, colon, rest = text.partition(":")
    if not colon or not rest:
        raise ValueError(
            f'"{text}" names no model source; write timm:NAME, timm:GLOB, local:FOLDER or local:FILE'
        )
    return {"name": name, "options": {"spec": rest}}


Choice = Annotated[StrategyChoice, BeforeValidator(_choice)]
DataChoice = Annotated[
    StrategyChoice,
    BeforeValidator(lambda given: data_choice(given) if isinstance(given, str) else _choice(given)),
]
ModelChoice = Annotated[
    StrategyChoice,
    BeforeValidator(lambda given: model_choice(given) if isinstance(given, str) else _choice(given)),
]


def _target(given: Any) -> Any:
    """As for the source; a folder of target images need not be sorted by class."""
    choice = data_choice(given) if isinstance(given, str) else _choice(given)
    if isinstance(choice, dict) and choice.get("name") == "image-folder":
        return {**choice, "options": {"labelled": False, **choice.get("options", {})}}
    return choice


TargetChoice = Annotated[StrategyChoice, BeforeValidator(_target)]


def _several(given: Any) -> Any:
    """One where several could stand."""
    return [given] if isinstance(given, str | Mapping | BaseModel) else given


class DataConfig(_Section):
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
    target_classes: Annotated[tuple[str, ...] | None, BeforeValidator(_several)] = Field(
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


class SelectionConfig(_Section):
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


class FinetuneConfig(_Section):
    """How the best candidates are trained on labelled images. The best strategy on validation is kept."""

    model_config = ConfigDict(title="Fine-tuning")

    strategies: tuple[Choice, ...] = Field(
        (StrategyChoice(name="linear-probe"), StrategyChoice(name="lp-ft")),
        min_length=1,
        alias="try",
        title="Strategies",
        description="tried in turn; ties keep the earlier one",
    )


class AdaptConfig(_Section):
    """How the gap to unlabelled target images is closed. Source-only is always a candidate."""

    model_config = ConfigDict(title="Adaptation")

    strategies: Annotated[tuple[Choice, ...], BeforeValidator(_several)] = Field(
        (StrategyChoice(name="mcc"),),
        alias="try",
        title="Strategies",
        description="adapters that are tried where there are target images",
    )
    validators: Annotated[tuple[Choice, ...], BeforeValidator(_several)] = Field(
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


class EvaluationConfig(_Section):
    """How the result is measured."""

    model_config = ConfigDict(title="Evaluation")

    replicates: int = Field(1000, ge=100, le=100_000, title="Bootstrap replicates")
    scratch: Choice = Field(
        StrategyChoice(name="full", options={"epochs": 6}),
        title="From-scratch baseline",
        description="the strategy that trains the chosen network from a random initialisation",
    )


class ExportConfig(_Section):
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


class ComputeConfig(_Section):
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


class RunConfig(_Section):
    """One run: data, candidates, and every choice on the way to a proven file."""

    model_config = ConfigDict(title="tlcore run")

    name: str = Field(
        "run", min_length=1, max_length=80, title="Name", description="shown in lists and on the run card"
    )
    data: DataConfig
    models: Annotated[tuple[ModelChoice, ...], BeforeValidator(_several)] = Field(
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


class ListingConfig(_Section):
    """Source models to list, and the limits that filter them; as in RunConfig."""

    models: tuple[ModelChoice, ...]
    selection: SelectionConfig = SelectionConfig()


def parse_listing(
    document: Mapping[str, Json], *, where: str = "configuration", command: str = "models"
) -> ListingConfig:
    """As `parse_config`, of what a listing needs.

    Raises:
        UserError: as `parse_config`.
    """
    try:
        return ListingConfig.model_validate(document)
    except ValidationError as error:
        raise _explain(error, where, command) from None


def parse_config(
    document: Mapping[str, Json], *, where: str = "configuration", command: str = "run"
) -> RunConfig:
    """A RunConfig from plain data. Errors name the help of `command` of tlcore.

    Raises:
        UserError: every unknown or ill-typed entry by its section and name, with the nearest known name.
    """
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        raise _explain(error, where, command) from None


def load_run_file(path: Path, *, command: str = "run") -> dict[str, Any]:
    """The run file as plain data, with relative paths made absolute against the file's folder.

    Raises:
        UserError: no such file, or not TOML (with line and column).
    """
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else [], n=1
        )
        raise UserError(
            "no such run file" + (f'; did you mean "{near[0]}"?' if near else ""),
            where=str(path),
            hint=f"tlcore {command} --data FOLDER --models local:FOLDER",
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not TOML: {error}", where=str(path)) from None
    return _anchor(document, path.parent.resolve())


def _anchor(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative places in the file's own terms: data.source, data.target, the specs of local models, result tables."""

    def place(text: str) -> str:
        return str((folder / Path(text).expanduser()).resolve())

    data = document.get("data")
    if isinstance(data, dict):
        for key in ("source", "target"):
            if isinstance(data.get(key), str):
                data[key] = data_choice(data[key])
            if isinstance(data.get(key), dict):
                options = data[key].get("options", data[key])
                for name in ("path", "root"):
                    if isinstance(options.get(name), str):
                        options[name] = place(options[name])
    selection = document.get("selection")
    if isinstance(selection, dict) and isinstance(selection.get("results"), str):
        selection["results"] = place(selection["results"])
    given = document.get("models")
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list):
        document["models"] = [_anchored_model(entry, folder) for entry in given]
    return document


def _anchored_model(entry: Any, folder: Path) -> Any:
    if isinstance(entry, str) and entry.partition(":")[2]:
        entry = model_choice(entry)
    if isinstance(entry, dict):
        options = entry["options"] if isinstance(entry.get("options"), dict) else entry
        spec = options.get("spec")
        if isinstance(spec, str):
            place = (folder / Path(spec).expanduser()).resolve()
            # A spec of another source may be a hub name or a glob: only what exists beside the file is a path.
            if entry.get("name") == "local" or place.exists():
                options["spec"] = str(place)
    return entry


def _explain(error: ValidationError, where: str, command: str) -> UserError:
    lines = []
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"]]
        spot = ".".join(path)
        if item["type"] == "extra_forbidden":
            known = _fields_at(path[:-1])
            near = difflib.get_close_matches(path[-1], known, n=1)
            lines.append(
                f'unknown option "{spot}"'
                + (f'; did you mean "{near[0]}"?' if near else f" (known: {', '.join(known)})")
            )
        elif item["type"] == "missing":
            lines.append(f'"{spot}" is missing')
        else:
            given = item.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            lines.append(f'"{spot}": {item["msg"].removeprefix("Value error, ")}{shown}')
    return UserError("; ".join(lines), where=where, hint=f"tlcore {command} --help")


def _fields_at(path: list[str]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return []
        model = field.annotation
    return sorted(field.alias or name for name, field in model.model_fields.items())

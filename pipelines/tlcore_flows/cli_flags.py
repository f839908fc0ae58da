"""Flags of `tlcore run` and `tlcore rank`: one row per option of RunConfig, and how they become a document.

A flag's help is the title, description, bounds and default of the option it sets, so that they cannot differ.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tlcore.config import RunConfig, StrategyChoice, data_choice, load_run_file, model_choice
from tlcore.errors import UserError
from tlcore.values import Json

__all__ = ["FLAGS", "Flag", "document", "parameters"]

_TABLES = (".csv", ".parquet", ".pq")
NOTHING = "none"
"""What --adapt is given to try no adapter at all."""


def _place(text: str) -> str:
    """An existing file or folder as an absolute path; a run may go on in another process and folder."""
    path = Path(text).expanduser()
    return str(path.resolve()) if path.exists() else text


def _data(text: str) -> Json:
    choice = data_choice(text)
    choice["options"]["path"] = _place(choice["options"]["path"])
    return choice


def _model(text: str) -> Json:
    try:
        choice = model_choice(text)
    except ValueError as error:
        raise UserError(
            str(error), where="models", hint="list the sources with: tlcore plugins --kind model-source"
        ) from None
    if choice["name"] != "timm":  # whose names are none of files
        choice["options"]["spec"] = _place(choice["options"]["spec"])
    return choice


def _value(text: str) -> Json:
    """A TOML value; what is none is taken as the text it is, so that quotes are not needed twice."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _choice(text: str) -> Json:
    """NAME or NAME:key=value,key=value -> a strategy with its options."""
    name, colon, rest = text.partition(":")
    if not colon:
        return {"name": name}
    try:
        return {"name": name, "options": tomllib.loads(f"options = {{{rest}}}")["options"]}
    except tomllib.TOMLDecodeError:
        pass
    options = {}
    for part in _BETWEEN_OPTIONS.split(rest):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f'"{part}" in "{text}" is no option',
                hint="write NAME:key=value,key=value; tlcore plugins show NAME",
            )
        options[key.strip()] = _value(value.strip())
    return {"name": name, "options": options}


def _bounds_of(text: str) -> Json:
    """OPTION=[LOW, HIGH],OPTION=[LOW, HIGH] -> a table."""
    try:
        return tomllib.loads(f"bounds = {{{text}}}")["bounds"]
    except tomllib.TOMLDecodeError:
        raise UserError(
            f'"{text}" are no bounds', where="--search-bounds", hint='write --search-bounds "lr=[1e-5, 1e-2]"'
        ) from None


_BETWEEN_OPTIONS = re.compile(r",(?=[^,=\[\]{}\"']+=)")
"""The comma before a key; those inside a list are followed by something else."""


@dataclass(frozen=True)
class Flag:
    """One flag: its name, the option of RunConfig it sets, its panel in the help, and what text becomes."""

    name: str
    path: str
    panel: str
    metavar: str
    type: type = str
    parse: Callable[[Any], Json] = lambda given: given
    repeat: bool = False
    rank: bool = True
    more: str = ""
    help: str = ""

    @property
    def parameter(self) -> str:
        return self.name.removeprefix("--").replace("-", "_")


DATA, MODELS, SELECTION = "Data", "Source models", "Selection"
TRAINING, RESULT, GENERAL = "Fine-tuning and adaptation", "Evaluation and export", "The run"

FLAGS: tuple[Flag, ...] = (
    Flag("--data", "data.source", DATA, "PATH", parse=_data),
    Flag("--target", "data.target", DATA, "PATH", parse=_data),
    Flag("--target-domain", "data.target_domain", DATA, "NAME"),
    Flag("--target-class", "data.target_classes", DATA, "NAME", repeat=True),
    Flag("--check", "data.check", DATA, "NAME", parse=_choice),
    Flag("--validation", "data.validation", DATA, "SHARE", float),
    Flag("--test", "data.test", DATA, "SHARE", float),
    Flag("--max-bad-share", "data.max_bad_share", DATA, "SHARE", float),
    Flag("--max-pixels", "data.max_pixels", DATA, "PIXELS", int),
    Flag("--models", "models", MODELS, "SPEC", parse=_model, repeat=True),
    Flag("--scorer", "selection.scorers", SELECTION, "NAME", parse=_choice, repeat=True),
    Flag("--shortlist", "selection.shortlist", SELECTION, "K", int),
    Flag("--trial", "selection.trial", SELECTION, "HOW", rank=False),
    Flag("--trial-seconds", "selection.trial_seconds", SELECTION, "SECONDS", float, rank=False),
    Flag("--max-params", "selection.max_params", SELECTION, "MILLIONS", float),
    Flag("--max-gmacs", "selection.max_gmacs", SELECTION, "GMACS", float),
    Flag("--max-latency-ms", "selection.max_latency_ms", SELECTION, "MS", float),
    Flag("--licence", "selection.licences", SELECTION, "NAME", repeat=True),
    Flag("--results", "selection.results", SELECTION, "CSV", parse=_place),
    Flag("--verify-ranking", "selection.verify", SELECTION, "", bool, rank=False),
    Flag("--verify-with", "selection.verify_with", SELECTION, "NAME", parse=_choice, rank=False),
    Flag("--replicates", "selection.replicates", SELECTION, "N", int),
    Flag("--max-images", "selection.max_images", SELECTION, "N", int),
    Flag("--engine", "selection.engine", SELECTION, "NAME"),
    Flag("--tuner", "finetune.try", TRAINING, "NAME", parse=_choice, repeat=True, rank=False),
    Flag("--budget", "finetune.budget", TRAINING, "TIME", rank=False),
    Flag("--validate-by", "finetune.validation", TRAINING, "HOW", rank=False),
    Flag("--folds", "finetune.folds", TRAINING, "N", int, rank=False),
    Flag("--trials", "finetune.search.trials", TRAINING, "N", int, rank=False),
    Flag("--search", "finetune.search.fields", TRAINING, "OPTION", repeat=True, rank=False),
    Flag(
        "--search-bounds",
        "finetune.search.bounds",
        TRAINING,
        "OPTION=[LOW, HIGH],…",
        parse=_bounds_of,
        rank=False,
    ),
    Flag("--soup", "finetune.soup", TRAINING, "", bool, rank=False),
    Flag(
        "--adapt", "adapt.try", TRAINING, "NAME", parse=_choice, repeat=True, rank=False, more='"none": none'
    ),
    Flag("--validator", "adapt.validators", TRAINING, "NAME", parse=_choice, repeat=True, rank=False),
    Flag("--target-sample", "adapt.max_images", TRAINING, "N", int, rank=False),
    Flag("--label-sets", "adapt.label_sets", TRAINING, "HOW", rank=False),
    Flag("--source-floor", "adapt.source_floor", TRAINING, "SHARE", float, rank=False),
    Flag("--bootstrap", "evaluation.replicates", RESULT, "N", int, rank=False),
    Flag("--scratch", "evaluation.scratch", RESULT, "NAME", parse=_choice, rank=False),
    Flag("--exporter", "export.exporter", RESULT, "NAME", parse=_choice, rank=False),
    Flag("--tolerance", "export.tolerance", RESULT, "DIFFERENCE", float, rank=False),
    Flag("--calibrate", "export.calibrate", RESULT, "", bool, rank=False),
    Flag("--runner", "compute.runner", GENERAL, "NAME"),
    Flag("--workers", "compute.workers", GENERAL, "N", int),
    Flag("--cluster", "compute.address", GENERAL, "ADDRESS"),
    Flag("--shards", "compute.shards", GENERAL, "N", int),
    Flag("--precision", "compute.precision", GENERAL, "NAME", rank=False),
    Flag("--processes", "compute.processes", GENERAL, "N", int, rank=False),
    Flag("--launch", "compute.launch", GENERAL, "ARGUMENTS", rank=False),
    Flag("--name", "name", GENERAL, "TEXT"),
    Flag("--seed", "seed", GENERAL, "N", int),
    Flag("--threads", "threads", GENERAL, "N", int),
    Flag("--device", "device", GENERAL, "DEVICE"),
)
"""A strategy's NAME may carry options, NAME:key=value,key=value; a flag that repeats replaces the file's list."""

SOURCE_FLAGS: tuple[Flag, ...] = (
    Flag(
        "--label-column", "data.source.label", DATA, "NAME",
        help="Label column: of a CSV or Parquet file (default: label)",
    ),
    Flag(
        "--task", "data.source.task", DATA, "NAME",
        help="Kind of labels: of a CSV or Parquet file (one of auto, classification, regression, multi-label; default: "
        "auto: numbers where they have a decimal point, tags where there are lists or a separator, else classes)",
    ),
    Flag(
        "--separator", "data.source.separator", DATA, "TEXT",
        help="Separator of tags: in a cell of a CSV file that holds several, as in cat|dog",
    ),
)  # fmt: skip
"""Options of the data source, where it has them: not of RunConfig itself."""


def parameters(*, rank: bool) -> dict[str, Any]:
    """Typer annotations by parameter name, for the flags of `run` or of `rank`."""
    made: dict[str, Any] = {}
    for flag in (*FLAGS, *SOURCE_FLAGS):
        if rank and not flag.rank:
            continue
        kind: Any = list[flag.type] if flag.repeat else flag.type  # type: ignore[name-defined]
        option = typer.Option(
            f"{flag.name}/--no{flag.name[1:]}" if flag.type is bool else flag.name,
            metavar=flag.metavar or None,
            help=describe(flag),
            rich_help_panel=flag.panel,
            show_default=False,
        )
        made[flag.parameter] = Annotated[kind | None, option]
    return made


def describe(flag: Flag) -> str:
    """Title, description, bounds and default of the option that the flag sets."""
    if flag.help:
        return flag.help
    field = _field(flag.path)
    text = field.title or flag.path
    for part in (flag.more, field.description):
        if part:
            text += f"; {part}" if ": " in text else f": {part}"
    names = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    bounds = f"one of {', '.join(map(str, names))}" if names else _bounds(field)
    default = _default(field)
    notes = [note for note in (bounds, default, "repeatable" if flag.repeat else "") if note]
    between = "; " if names else ", "
    # Square brackets would be read as markup.
    return f"{text} ({between.join(notes)})" if notes else text


def _field(path: str) -> FieldInfo:
    model: type[BaseModel] = RunConfig
    *sections, last = path.split(".")
    for section in sections:
        annotation = model.model_fields[section].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return next(field for name, field in model.model_fields.items() if last in (name, field.alias))


def _bounds(field: FieldInfo) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = [
        f"{words[name]} {_number(value)}"
        for rule in field.metadata
        for name in words
        if isinstance(value := getattr(rule, name, None), int | float)
    ]
    return ", ".join(found)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"default: {'yes' if value else 'no'}"
    if isinstance(value, tuple | dict):
        names = " ".join(getattr(choice, "name", str(choice)) for choice in value)
        return f"default: {names}" if names else ""
    return f"default: {_number(value) if isinstance(value, int) else getattr(value, 'name', value)}"


def _number(value: float) -> str:
    """Thousands apart: 100 000 000."""
    return f"{value:,}".replace(",", " ")


def document(
    file: Path | None,
    given: Mapping[str, Any],
    settings: Iterable[str],
    *,
    allow_download: bool,
    command: str = "run",
) -> dict[str, Json]:
    """The configuration as plain data: the run file, then the flags that were given, then --set.

    file: a run file; or images, as --data would name them: a folder, a CSV or a Parquet file.

    Raises:
        UserError: no such file, not TOML, or a malformed flag.
    """
    made: dict[str, Json] = {}
    if file is not None and (file.suffix.lower() in _TABLES or file.is_dir()):
        _set(made, "data.source", _data(str(file)))
    elif file is not None:
        made = load_run_file(file, command=command)
    for flag in (*FLAGS, *SOURCE_FLAGS):
        value = given.get(flag.parameter)
        if value is None or value == []:
            continue
        if flag.repeat:
            nothing = flag.name == "--adapt" and value == [NOTHING]
            _set(made, flag.path, [] if nothing else [flag.parse(one) for one in value])
        else:
            _set(made, flag.path, flag.parse(value))
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path.strip():
            raise UserError(f'--set "{setting}" sets nothing', hint="write --set section.key=value")
        _set(made, path.strip(), _value(value.strip()))
    if allow_download:
        _allow_download(made)
    made.setdefault("name", _name(made))
    return made


def _set(made: dict[str, Any], path: str, value: Json) -> None:
    """Set made[a][b][c] for "a.b.c". `try` is what files call the strategies of a section."""
    *sections, last = path.split(".")
    place = made
    for depth, section in enumerate(sections, 1):
        inner = place.get(section)
        if not isinstance(inner, dict):
            here = ".".join(sections[:depth])
            table = _default_table(here) if inner is None else _as_table(inner, here)
            inner = place[section] = table
        place = inner
    if last == "try":
        place.pop("strategies", None)
    place[last] = value


def _default_table(path: str) -> dict[str, Json]:
    """Where a strategy stands by default, its options are set beside its name; elsewhere an empty section."""
    found = next((flag for flag in FLAGS if flag.path == path), None)
    default = _field(path).default if found is not None else None
    return default.model_dump() if isinstance(default, StrategyChoice) else {}


def _as_table(value: Json, path: str = "") -> dict[str, Json]:
    """A strategy that stands there by name alone gets a table for its options."""
    if isinstance(value, str) and path in {"data.source", "data.target"}:
        return data_choice(value)
    if isinstance(value, str):
        return {"name": value}
    raise UserError(f"--set goes into {value!r}, which is no table", hint="write --set section.key=value")


_FROM_HUB = ("timm", "open-clip")
"""Model sources that fetch weights where that is allowed."""


def _allow_download(made: dict[str, Any]) -> None:
    models = made.get("models")
    if not isinstance(models, list):
        return
    for index, entry in enumerate(models):
        choice = _model(entry) if isinstance(entry, str) else entry
        if isinstance(choice, dict) and choice.get("name") in _FROM_HUB:
            options = choice.setdefault("options", {})
            options["allow_download"] = True
            models[index] = choice


def _name(made: Mapping[str, Any]) -> str:
    """A run without a name is called after its data."""
    data = made.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    options = source.get("options", source) if isinstance(source, dict) else {}
    path = options.get("path") if isinstance(options, dict) else None
    return (Path(path).stem if isinstance(path, str) else "")[:80] or "run"

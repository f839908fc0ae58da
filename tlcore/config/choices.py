"""How a strategy is named in a configuration: text, or a table with options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tlcore.values import Json

__all__ = [
    "Choice", "DataChoice", "ModelChoice", "Section", "StrategyChoice", "TargetChoice", "data_choice", "model_choice", "several",
]  # fmt: skip


class Section(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class StrategyChoice(Section):
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


def several(given: Any) -> Any:
    """One where several could stand."""
    return [given] if isinstance(given, str | Mapping | BaseModel) else given

"""From plain data to a configuration, and from what pydantic finds wrong to what a person can mend."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from tlcore.config.sections import ListingConfig, RunConfig
from tlcore.errors import UserError
from tlcore.values import Json

__all__ = ["parse_config", "parse_listing"]


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

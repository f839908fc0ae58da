"""The hooks. A plugin is any module or package with some of these, marked `@hookimpl`.

    from tlcore.hookspecs import hookimpl

    @hookimpl
    def tlcore_scorers():
        return [MyScorer]

Strategy hooks are called once when an installation is indexed and once more when a run builds a
strategy; they return strategy *classes* and do nothing else. Keep such a module cheap to import:
bring in torch and timm where they are used. Returning None is the same as returning [].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from tlcore.protocols import (
        Adapter,
        DataCheck,
        DataSource,
        Exporter,
        ModelSource,
        Scorer,
        Tuner,
        Validator,
    )
    from tlcore.values import Json

HOOK_API = 1
"""Version of this contract. A strategy's `card.api` must equal it."""

PROJECT = "tlcore"
GROUP = "tlcore"
"""The entry-point group: `[project.entry-points.tlcore]`."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# ruff: noqa: E704 - a hook's body is its documentation


@hookspec
def tlcore_data_sources() -> list[type[DataSource]]:
    """Data sources: from a place a person names to a table of images. Since API 1."""
    return []


@hookspec
def tlcore_data_checks() -> list[type[DataCheck]]:
    """Data checks: pure functions of a table; problems are values. Since API 1."""
    return []


@hookspec
def tlcore_model_sources() -> list[type[ModelSource]]:
    """Model sources: list candidates and build them; offline unless told otherwise. Since API 1."""
    return []


@hookspec
def tlcore_scorers() -> list[type[Scorer]]:
    """Transferability scores, higher is better. Since API 1."""
    return []


@hookspec
def tlcore_adapters() -> list[type[Adapter]]:
    """Domain adapters: a training plan that sees labelled source and unlabelled target. Since API 1."""
    return []


@hookspec
def tlcore_tuners() -> list[type[Tuner]]:
    """Tuners: a training plan on labelled images. Since API 1."""
    return []


@hookspec
def tlcore_validators() -> list[type[Validator]]:
    """Label-free validators: choose a checkpoint without target labels, higher is better. Since API 1."""
    return []


@hookspec
def tlcore_exporters() -> list[type[Exporter]]:
    """Exporters: from a trained network to a file. Since API 1."""
    return []


@hookspec
def tlcore_run_started(run: dict[str, Json]) -> None:
    """A run begins. `run`: {"id", "name", "store"}. Observers look and never touch; one that raises is logged. Since API 1."""


@hookspec
def tlcore_stage_finished(run: dict[str, Json], stage: dict[str, Json]) -> None:
    """A stage ended. `stage`: {"name", "subject", "seconds", "cached"}. Since API 1."""


@hookspec
def tlcore_run_finished(run: dict[str, Json], outcome: dict[str, Json]) -> None:
    """A run ended. `outcome`: {"state": "completed" | "failed", "error": str | None}. Since API 1."""

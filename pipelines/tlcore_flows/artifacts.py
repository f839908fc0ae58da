"""Prefect artifacts: after each stage what a person wants to see of it in the morning."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from tlcore.stages.base import StageJob, StageResult
from tlcore.store import Store

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["ProgressArtifact", "key", "publish"]

_log = logging.getLogger(__name__)


def key(*parts: str) -> str:
    """An artifact key: lower-case letters, digits and single dashes only; never empty.

    >>> key("score", "timm:ResNet_18")
    'score-timm-resnet-18'
    """
    return "-".join(filter(None, re.split(r"[^a-z0-9]+", "-".join(parts).lower()))) or "artifact"


class ProgressArtifact:
    """A progress artifact that comes into being with its first update."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._id: UUID | None = None
        self._broken = False

    def update(self, percent: float, text: str) -> None:
        if self._broken:
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        try:
            if self._id is None:
                self._id = create_progress_artifact(
                    percent, key=key("progress", self._label), description=text
                )
            else:
                update_progress_artifact(self._id, percent, description=text)
        except Exception:  # noqa: BLE001 - progress is a courtesy; the work goes on
            self._broken = True
            _log.warning("no progress artifact for %s", self._label, exc_info=True)


def publish(job: StageJob, result: StageResult, store: Store) -> None:
    """Create the artifacts of a finished stage. One that fails is logged and never ends a run."""

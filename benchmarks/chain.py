"""The stages of the main job on one store, without Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["Chain"]


class Chain:
    """Runs stages and finds those that were run: what is done lies in the store."""

    def __init__(self, store: Path) -> None:
        from tlcore.registry import Registry
        from tlcore.store import Store

        self.store = Store.open(store)
        self.registry = Registry.discover(cache_folder=self.store.root)

    def stage(self, name: str, subject: str = "", *, threads: int = 1, **parts: Any) -> Any:
        """The ref of one stage's result. strategies: role -> (kind, name, options)."""
        from tlcore.stages.base import Choice, StageJob, run_stage

        strategies = {
            role: Choice(kind=kind, name=strategy, options=options)
            for role, (kind, strategy, options) in parts.pop("strategies", {}).items()
        }
        job = StageJob(stage=name, subject=subject, strategies=strategies, threads=threads, **parts)
        return run_stage(self.store, self.registry, job).ref

    def source(self, candidate: Any) -> tuple[str, str, dict[str, Any]]:
        """The model source that can build a candidate again, as `stage` takes it."""
        return ("model-source", candidate.source["name"], candidate.source["options"])

"""Submits the stages of one run and remembers what they took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tlcore.config import RunConfig, StrategyChoice
from tlcore.stages.base import Choice, StageJob
from tlcore.store import Store
from tlcore.values import Candidate, Json, Ref
from tlcore_flows.tasks import stage

__all__ = ["Wiring", "as_choice", "source_of"]


@dataclass
class Wiring:
    """Called like a stage: `ref = run("score", "resnet18", inputs={...})`.

    Attributes:
        provenance: written into results for people (the run's id).
        seconds: by stage, all its jobs together.
        computed: stages of which something had to be computed.
        warnings: what a reader of the card must know.
    """

    config: RunConfig
    store: Store
    provenance: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    def __call__(
        self,
        name: str,
        subject: str = "",
        *,
        inputs: Mapping[str, Ref | tuple[Ref, ...]] | None = None,
        options: dict[str, Json] | None = None,
        strategies: dict[str, Choice] | None = None,
    ) -> Ref:
        job = StageJob(
            stage=name,
            subject=subject,
            inputs={key: (ref,) if isinstance(ref, Ref) else ref for key, ref in (inputs or {}).items()},
            options=options or {},
            strategies=strategies or {},
            seed=self.config.seed,
            device=self.config.device,
            threads=self.config.threads,
            provenance=self.provenance,
        )
        result = stage(job, store=self.store.root)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + result.seconds, 3)
        if not result.cached:
            self.computed.add(name)
        return result.ref

    @property
    def cached(self) -> tuple[str, ...]:
        """Stages of which nothing had to be computed."""
        return tuple(name for name in self.seconds if name not in self.computed)


def as_choice(kind: str, choice: StrategyChoice) -> Choice:
    return Choice(kind=kind, name=choice.name, options=choice.options)


def source_of(candidate: Candidate) -> Choice:
    """The model source that can build a candidate again."""
    return Choice(kind="model-source", name=candidate.source["name"], options=candidate.source["options"])

"""Submits the stages of one run and remembers what they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tlcore.config import RunConfig, StrategyChoice
from tlcore.errors import TlcoreError
from tlcore.stages.base import Choice, StageJob, StageResult
from tlcore.store import Store
from tlcore.values import Candidate, Json, Ref
from tlcore_flows.runners import Fleet, threads_each
from tlcore_flows.tasks import stage, stages

__all__ = ["Wiring", "as_choice", "source_of"]


@dataclass
class Wiring:
    """Called like a stage: `ref = run("score", "resnet18", inputs={...})`.

    Attributes:
        provenance: written into results for people (the run's id).
        seconds: by stage, all its jobs together.
        computed: stages of which something had to be computed.
        warnings: what a reader of the card must know.
        decisions: what the run decided by itself, for people.
        fleet: workers for stages that do not wait for each other; None: one after another.
    """

    config: RunConfig
    store: Store
    provenance: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    fleet: Fleet | None = None

    def __call__(
        self,
        name: str,
        subject: str = "",
        *,
        inputs: Mapping[str, Ref | tuple[Ref, ...]] | None = None,
        options: dict[str, Json] | None = None,
        strategies: dict[str, Choice] | None = None,
    ) -> Ref:
        job = self.job(name, subject, inputs=inputs, options=options, strategies=strategies)
        return self._noted(job, stage(job, store=self.store.root))

    def job(
        self,
        name: str,
        subject: str = "",
        *,
        inputs: Mapping[str, Ref | tuple[Ref, ...]] | None = None,
        options: dict[str, Json] | None = None,
        strategies: dict[str, Choice] | None = None,
    ) -> StageJob:
        """The stage as `each` takes it: described, not run."""
        return StageJob(
            stage=name,
            subject=subject,
            inputs={key: (ref,) if isinstance(ref, Ref) else ref for key, ref in (inputs or {}).items()},
            options=options or {},
            strategies=strategies or {},
            seed=self.config.seed,
            device=self.config.device,
            threads=self.config.threads,
            processes=self.config.compute.processes,
            launch=self.config.compute.launch,
            provenance=self.provenance,
        )

    def each(self, jobs: Sequence[StageJob]) -> list[Ref | TlcoreError]:
        """Run stages that do not wait for each other, side by side where there is a fleet.

        Returns:
            In the order of `jobs`: the result's place, or the error of a stage that failed by itself
            (UserError, PluginError, GateError, RetryableError).
        """
        if self.fleet is not None:
            jobs = [job.model_copy(update={"threads": threads_each(self.config)}) for job in jobs]
        results = stages(jobs, store=self.store.root, fleet=self.fleet)
        return [
            result if isinstance(result, TlcoreError) else self._noted(job, result)
            for job, result in zip(jobs, results, strict=True)
        ]

    def _noted(self, job: StageJob, result: StageResult) -> Ref:
        self.seconds[job.stage] = round(self.seconds.get(job.stage, 0.0) + result.seconds, 3)
        if not result.cached:
            self.computed.add(job.stage)
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

"""What a stage is, its content key, and the one way in which stages run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, Field

from tlcore.errors import UserError
from tlcore.protocols import Strategy
from tlcore.registry import Registry
from tlcore.stages.launched import spread
from tlcore.stages.machine import settle
from tlcore.store import Store, Work, content_key
from tlcore.values import Json, Ref, Value

_Model = TypeVar("_Model", bound=BaseModel)

STAGES: dict[str, str] = {
    "load": "tlcore.stages.data:load",
    "check": "tlcore.stages.data:check",
    "candidates": "tlcore.stages.models:candidates",
    "latency": "tlcore.stages.latency:latency",
    "decode": "tlcore.stages.data:decode_images",
    "features": "tlcore.stages.models:features",
    "merge": "tlcore.stages.shards:merge",
    "score": "tlcore.stages.models:score",
    "rank": "tlcore.stages.models:rank_candidates",
    "train": "tlcore.stages.train:train",
    "search": "tlcore.stages.search:search",
    "embed": "tlcore.stages.domains:embed_rows",
    "gap": "tlcore.stages.domains:gap",
    "adapt": "tlcore.stages.adapt:adapt",
    "source-only": "tlcore.stages.adapt:look_at_source_only",
    "scatter": "tlcore.stages.domains:scatter",
    "evaluate": "tlcore.stages.evaluate:evaluate",
    "export": "tlcore.stages.export:export",
    "parity": "tlcore.stages.export:parity",
    "card": "tlcore.stages.evaluate:card",
}
"""Stage name -> "module:function". Modules are imported when the stage runs: most of them need torch."""

FROM_OUTSIDE = frozenset({"load", "candidates", "decode"})
"""Stages that look before they work. They always run; their key is the content of what they found."""

SHARED = frozenset({"train", "search"})
"""Stages that several processes can carry out together: those that take gradient steps on batches."""


class Progress(Protocol):
    """Called as work goes on. It may raise to stop the work: what can be resumed has been saved."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


def no_progress(done: int, total: int, text: str = "") -> None:
    """Show nothing."""


class Choice(Value):
    """A strategy in a job: kind, name and options."""

    kind: str
    name: str
    options: dict[str, Json] = {}


class StageJob(Value):
    """One stage to run. All but `subject`, `threads`, `launch` and `provenance` is part of the result's address."""

    stage: str
    subject: str = Field("", description='what it works on, for people: "resnet18"')
    inputs: dict[str, tuple[Ref, ...]] = {}
    options: dict[str, Json] = Field({}, description="the stage's slice of the configuration")
    strategies: dict[str, Choice] = Field({}, description="role -> strategy")
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    processes: int = Field(1, description="that share a training; accelerate starts them")
    launch: str = Field("", description="further arguments of accelerate launch")
    provenance: dict[str, str] = Field(
        {}, description="written into results for people; not part of the address"
    )

    @property
    def label(self) -> str:
        return f"{self.stage}-{self.subject}" if self.subject else self.stage


class StageResult(Value):
    """Where the result is, whether it was there already, and what the stage took this time."""

    ref: Ref
    cached: bool
    seconds: float


@dataclass(frozen=True)
class StageContext:
    """What a stage body works with."""

    store: Store
    registry: Registry
    job: StageJob
    work: Work
    progress: Progress

    def ref(self, name: str) -> Ref:
        return self.job.inputs[name][0]

    def refs(self, name: str) -> tuple[Ref, ...]:
        return self.job.inputs.get(name, ())

    def read(self, name: str, model: type[_Model]) -> _Model:
        """The value of the input `name`."""
        return self.store.read(self.ref(name), model)

    def folder(self, name: str) -> Path:
        return self.store.folder(self.ref(name))

    def option(self, name: str) -> Any:
        return self.job.options[name]

    def build(self, role: str) -> Strategy:
        """The strategy in this role, built with its options."""
        choice = self.job.strategies[role]
        return self.registry.build(choice.kind, choice.name, choice.options, where=f"stage {self.job.label}")


def job_key(job: StageJob, registry: Registry) -> str:
    """Content address of a job's result: inputs, options, seed, device, and who the strategies are.

    Two strategies with the same options never share a key: a strategy's identity is its kind, name,
    distribution, version, source digest and full options.
    """
    return content_key(
        {
            "stage": job.stage,
            "inputs": {name: [ref.key for ref in refs] for name, refs in job.inputs.items()},
            "options": job.options,
            "strategies": {
                role: registry.identity(choice.kind, choice.name, choice.options)
                for role, choice in job.strategies.items()
            },
            "seed": job.seed,
            "device": job.device.partition(":")[0],
            # batch norm in training, and losses over a whole batch, see the part of their own process
            **({"processes": job.processes} if job.processes > 1 and job.stage in SHARED else {}),
        }
    )


def run_stage(
    store: Store, registry: Registry, job: StageJob, progress: Progress = no_progress
) -> StageResult:
    """Run one stage, or find its result.

    Raises:
        TlcoreError: as the stage's body says; nothing half-written stays in the store.
    """
    started = time.monotonic()
    if job.stage not in STAGES:
        raise UserError(f'no stage named "{job.stage}"', choices=STAGES)

    def work(place: Work) -> None:
        if job.processes > 1 and job.stage in SHARED:
            spread(store, job, place, progress)
            return
        settle(job.threads, job.device)
        place.write(body(job.stage)(StageContext(store, registry, job, place, progress)))

    if job.stage in FROM_OUTSIDE:
        module, _, name = STAGES[job.stage].partition(":")
        key, value = getattr(importlib.import_module(module), name)(store, registry, job, progress)
        ref, cached = store.compute(job.stage, key, value)
    else:
        ref, cached = store.compute(
            job.stage,
            job_key(job, registry),
            work,
            waiting=lambda: progress(0, 0, "another run computes this; waiting for it"),
        )
    return StageResult(ref=ref, cached=cached, seconds=round(time.monotonic() - started, 3))


Outside = Callable[[Store, Registry, StageJob, Progress], tuple[str, Callable[[Work], None]]]
"""A stage FROM_OUTSIDE: the content key of what it found, and how to write it."""


def body(stage: str) -> Callable[[StageContext], BaseModel]:
    """The function that carries out a stage."""
    module, _, name = STAGES[stage].partition(":")
    function: Callable[[StageContext], BaseModel] = getattr(importlib.import_module(module), name)
    return function

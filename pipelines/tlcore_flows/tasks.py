"""The one Prefect task: it runs a `StageJob` and returns a small JSON document that says where the result is.

    from tlcore_flows.tasks import stage

    @flow
    def transfer(config: RunConfig) -> ...:
        loaded = stage(StageJob(stage="load", ...), store=root)          # StageResult: ref, cached, seconds
        checked = stage(StageJob(stage="check", inputs={"data": (loaded.ref,)}, ...), store=root)

Two caches lie behind each other. The run store is the truth: content-addressed, locked, shared by all
processes. Prefect's result record under the same key is what lets its UI show a stage as "Cached"; it is
believed only while the store has the result, so cleaning the store never leaves a dangling answer.
"""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.tasks import exponential_backoff

from tlcore.errors import GateError, PluginError, RetryableError, TlcoreError, UserError
from tlcore.stages.base import FROM_OUTSIDE, StageJob, StageResult, job_key, run_stage
from tlcore.store import Store
from tlcore.values import Ref
from tlcore_flows import observe
from tlcore_flows.opened import open_registry, open_store

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun

    from tlcore_flows.runners import Fleet

__all__ = ["RETRIES", "TIMEOUT_SECONDS", "results_folder", "stage", "stages"]

RETRIES = 2
"""Attempts after the first, for RetryableError alone."""

RETRY_BASE_SECONDS = 2.0
"""Delay before the first retry; it doubles with each, and is jittered by up to RETRY_JITTER of it."""

RETRY_JITTER = 0.3

_Found = TypeVar("_Found")

TIMEOUT_SECONDS: dict[str, float] = {
    "load": 3600,
    "candidates": 3600,
    "train": 7 * 86400,
    "search": 7 * 86400,
    "adapt": 7 * 86400,
}
"""Seconds after which a stage is stopped, where it is not DEFAULT_TIMEOUT_SECONDS. Training resumes from its
last checkpoint when the run is started again."""

DEFAULT_TIMEOUT_SECONDS = 86400.0


def results_folder(root: Path) -> Path:
    """Where Prefect keeps its JSON result records: inside the store, for its owner alone.

    Prefect's reader obeys the serializer that a record names, pickle included, so nobody else may write here.
    """
    folder = root / "prefect-results"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return folder


@task(
    name="stage",
    persist_result=True,
    result_serializer="json",
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(RETRY_BASE_SECONDS),
    retry_jitter_factor=RETRY_JITTER,
)
def _stage_task(job: StageJob, store: str) -> dict[str, Any]:
    opened = open_store(store)
    result = run_stage(opened, open_registry(opened.root), job, observe.progress(job))
    return result.model_dump(mode="json")


def _retryable(task: object, run: TaskRun, state: State[Any]) -> bool:
    """Prefect calls this after a failed attempt; `state.data` is the exception."""
    return isinstance(getattr(state.data, "result", state.data), RetryableError)


def _insisting(look: Callable[[], _Found]) -> _Found:
    """What a look into the store gives, with as many attempts as a stage has: a shared one may not answer at once."""
    for attempt in range(RETRIES):
        try:
            return look()
        except RetryableError:
            delay = RETRY_BASE_SECONDS * 2**attempt
            time.sleep(delay * (1 + random.uniform(0, RETRY_JITTER)))
    return look()


def stage(job: StageJob, *, store: Path) -> StageResult:
    """Run one stage as a Prefect task named after what it works on, or find its result.

    Args:
        job: what to do; its key is the address of the result.
        store: the root of the run store.

    Raises:
        TlcoreError: what the stage's body raised, the same object; RetryableError only after RETRIES more
            attempts, and when the stage took longer than its time.
    """
    opened = open_store(store)
    started = time.monotonic()
    with observe.stage(job, opened) as report:
        state = _configured(job, opened)(job, opened.place, return_state=True)
        if state.name == "TimedOut":
            raise RetryableError(
                f"took longer than {_timeout(job):,.0f} s",
                where=f"stage {job.label}",
                hint="run the same command again: training goes on from its last checkpoint",
            )
        result = StageResult.model_validate(state.result())
        if state.name == "Cached":
            # The record tells of the run that wrote it; this one took no time.
            result = StageResult(ref=result.ref, cached=True, seconds=round(time.monotonic() - started, 3))
        report(result)
    return result


def stages(
    jobs: Sequence[StageJob], *, store: Path, fleet: Fleet | None = None
) -> Iterator[StageResult | TlcoreError]:
    """Run independent stages, on the workers of the fleet where there is one: result or error of each, in order.

    What the store has is answered here; only what must be computed travels. There is no limit of time for it
    but that of the stage's own attempts: work in a thread cannot be stopped from outside.

    Args:
        jobs: what to do. One that fails by itself (UserError, PluginError, GateError, RetryableError) leaves its error.
        store: the root of the run store.

    Raises:
        TlcoreError, Exception: any other error of a stage's body.
    """
    opened = open_store(store)
    registry = open_registry(opened.root)
    submitted = {}
    unanswered: dict[int, RetryableError] = {}

    def known(job: StageJob) -> bool:
        def look() -> Ref | None:
            return opened.find(job.stage, job_key(job, registry))

        # One patient look finds out that nobody answers; the others need not wait as long.
        return (look() if unanswered else _insisting(look)) is not None

    for number, job in enumerate(jobs if fleet is not None else ()):
        if job.stage in FROM_OUTSIDE:
            continue
        try:
            if known(job):
                continue
        except RetryableError as error:
            unanswered[number] = error
            continue
        assert fleet is not None
        submitted[number] = fleet.submit(_travelling(job), {"job": job, "store": opened.place})
    for number, job in enumerate(jobs):
        if number in unanswered:
            yield unanswered[number]
            continue
        try:
            if number in submitted and fleet is not None:
                with observe.stage(job, opened) as report:
                    result = StageResult.model_validate(fleet.result(submitted[number]))
                    made = result.ref  # with a shared store: what was made elsewhere comes here
                    _insisting(functools.partial(opened.folder, made))
                    report(result)
                yield result
            else:
                yield stage(job, store=store)
        except (UserError, PluginError, GateError, RetryableError) as error:
            yield error


def _travelling(job: StageJob) -> Any:
    """The task for another process: nothing of it is persisted by Prefect, the store alone remembers it."""
    return _stage_task.with_options(
        name=job.stage,
        task_run_name=job.label.replace("{", "{{").replace("}", "}}"),
        tags=_tags(job),
        retry_condition_fn=_retryable,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _configured(job: StageJob, store: Store) -> Callable[..., Any]:
    registry = open_registry(store.root)
    # Prefect stops a task by a signal, which reaches the main thread alone.
    in_main = threading.current_thread() is threading.main_thread()
    common: dict[str, Any] = {
        "name": job.stage,
        "task_run_name": lambda: job.label,
        "tags": _tags(job),
        "result_storage": results_folder(store.root),
        "timeout_seconds": _timeout(job) if in_main else None,
        "retry_condition_fn": _retryable,
    }
    if job.stage in FROM_OUTSIDE:
        return _stage_task.with_options(cache_policy=NO_CACHE, persist_result=False, **common)
    key = job_key(job, registry)
    return _stage_task.with_options(
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda context, parameters: f"{job.stage}-{key}"),
        refresh_cache=_insisting(lambda: store.find(job.stage, key)) is None,
        **common,
    )


def _timeout(job: StageJob) -> float:
    return TIMEOUT_SECONDS.get(job.stage, DEFAULT_TIMEOUT_SECONDS)


def _tags(job: StageJob) -> set[str]:
    """What a concurrency limit of the Prefect server may hold on to."""
    tags = set()
    if job.device != "cpu":
        tags.add("gpu")
    if any(choice.options.get("allow_download") for choice in job.strategies.values()):
        tags.add("hub")
    return tags

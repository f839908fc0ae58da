"""The Prefect task that runs stages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tests.flows.tiny_stages import CALLS, Number
from tlcore.errors import GateError, RetryableError, UserError
from tlcore.stages.base import Choice, StageJob, StageResult
from tlcore.store import Store
from tlcore_flows import observe, tasks
from tlcore_flows.tasks import stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "stages")]


def in_flow(work: Callable[[], Any]) -> Any:
    @flow(name="test")
    def run() -> Any:
        return work()

    return run()


def number(value: int, store: Path) -> StageResult:
    return stage(StageJob(stage="load", options={"number": value}), store=store)


def squared(value: int, store: Path) -> StageResult:
    return stage(
        StageJob(stage="square", subject=str(value), inputs={"number": (number(value, store).ref,)}),
        store=store,
    )


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks._stage_task, "retry_delay_seconds", 0)


def test_refs_go_in_and_a_ref_comes_out(store: Path) -> None:
    def wiring() -> StageResult:
        refs = tuple(squared(value, store).ref for value in (2, 3))
        return stage(StageJob(stage="total", inputs={"numbers": refs}), store=store)

    result = in_flow(wiring)
    assert not result.cached
    assert Store(store).read(result.ref, Number).number == 13


def test_a_second_run_finds_every_result_and_says_so(store: Path) -> None:
    first = in_flow(lambda: squared(4, store))
    second = in_flow(lambda: squared(4, store))
    assert (first.cached, second.cached) == (False, True)
    assert second.ref == first.ref
    assert CALLS["square-4"] == 1


def test_the_outside_is_looked_at_in_every_run(store: Path) -> None:
    in_flow(lambda: number(1, store))
    in_flow(lambda: number(1, store))
    assert CALLS["load"] == 2


def test_a_result_that_left_the_store_is_computed_anew(store: Path) -> None:
    first = in_flow(lambda: squared(5, store))
    for file in Store(store).folder(first.ref).iterdir():
        file.unlink()
    second = in_flow(lambda: squared(5, store))
    assert not second.cached
    assert CALLS["square-5"] == 2
    assert Store(store).read(second.ref, Number).number == 25


def test_a_result_of_another_process_is_found_without_a_prefect_record(store: Path) -> None:
    in_flow(lambda: squared(6, store))
    for record in tasks.results_folder(store).iterdir():
        record.unlink()
    assert in_flow(lambda: squared(6, store)).cached
    assert CALLS["square-6"] == 1


def test_two_strategies_with_the_same_options_never_share_a_result(store: Path) -> None:
    def named(name: str, kind: str) -> StageResult:
        return stage(
            StageJob(stage="named", strategies={"scorer": Choice(kind=kind, name=name)}), store=store
        )

    first, second = in_flow(lambda: (named("linear-probe", "tuner"), named("full", "tuner")))
    assert first.ref.key != second.ref.key
    texts = [Store(store).read(result.ref, Number).text for result in (first, second)]
    assert texts == ["linear-probe", "full"]


def test_nothing_is_pickled(store: Path) -> None:
    with pytest.raises(UserError):
        in_flow(lambda: (squared(7, store), stage(fails("user", 1), store=store)))
    records = list(tasks.results_folder(store).iterdir())
    assert records
    for record in records:
        document = json.loads(record.read_text(encoding="utf-8"))
        assert document["metadata"]["serializer"]["type"] == "json"
    assert tasks.results_folder(store).stat().st_mode & 0o777 == 0o700


def fails(kind: str, times: int) -> StageJob:
    return StageJob(stage="fails", subject=kind, options={"kind": kind, "times": times})


def test_a_retryable_error_is_retried(store: Path) -> None:
    result = in_flow(lambda: stage(fails("retryable", 2), store=store))
    assert Store(store).read(result.ref, Number).number == 3


def test_a_retryable_error_that_stays_comes_out_as_itself(store: Path) -> None:
    with pytest.raises(RetryableError, match="the network is gone"):
        in_flow(lambda: stage(fails("retryable", 99), store=store))
    assert CALLS["fails-retryable"] == 1 + tasks.RETRIES


@pytest.mark.parametrize(
    ("kind", "error"), [("user", UserError), ("gate", GateError), ("bug", ZeroDivisionError)]
)
def test_any_other_error_comes_out_as_itself_at_once(store: Path, kind: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        in_flow(lambda: stage(fails(kind, 99), store=store))
    assert CALLS[f"fails-{kind}"] == 1
    if isinstance(caught.value, UserError):
        parts = caught.value.what, caught.value.where, caught.value.choices, caught.value.hint
        assert parts == ("the input is wrong", "here", ("a", "b"), "mend it")


@pytest.mark.timeout(60, method="thread")  # the other method keeps the alarm that Prefect needs
def test_a_stage_that_takes_too_long_is_stopped_and_named(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks.TIMEOUT_SECONDS, "sleeps", 0.2)
    with pytest.raises(RetryableError, match="stage sleeps-x: took longer than"):
        in_flow(lambda: stage(StageJob(stage="sleeps", subject="x"), store=store))


def test_task_runs_are_named_after_what_they_work_on(store: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterName

    subject = 'odd {name} "x"/8'
    in_flow(
        lambda: stage(
            StageJob(stage="square", subject=subject, inputs={"number": (number(8, store).ref,)}), store=store
        )
    )
    wanted = TaskRunFilter(name=TaskRunFilterName(any_=[f"square-{subject}"]))
    states: list[str | None] = []
    with get_client(sync_client=True) as client:
        # Task runs reach the server's tables as events, some time after the flow has ended.
        for _ in range(600):
            states = [run.state_name for run in client.read_task_runs(task_run_filter=wanted)]
            if states == ["Completed"]:
                break
            time.sleep(0.1)
    assert states == ["Completed"]


def test_observers_learn_of_a_run_and_its_stages(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(observe, "_notify", lambda root, hook, **values: heard.append((hook, values)))

    def wiring() -> None:
        with observe.run("r1", "my run", store):
            number(9, store)

    in_flow(wiring)
    assert [hook for hook, _ in heard] == [
        "tlcore_run_started",
        "tlcore_stage_finished",
        "tlcore_run_finished",
    ]
    assert heard[0][1]["run"] == {"id": "r1", "name": "my run", "store": str(store)}
    assert heard[1][1]["stage"]["name"] == "load"
    assert heard[2][1]["outcome"] == {"state": "completed", "error": None}


class _Flaky:
    """`Store.find` of a shared store that does not answer at first."""

    def __init__(self, failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.asked, find = failures, 0, Store.find

        def flaky(store: Store, name: str, key: str) -> Any:
            if name != "square":
                return find(store, name, key)
            self.asked += 1
            self.left -= 1
            if self.left >= 0:
                raise RetryableError("the shared store does not answer", where="s3://x", hint="again")
            return find(store, name, key)

        monkeypatch.setattr(Store, "find", flaky)
        monkeypatch.setattr(tasks, "RETRY_BASE_SECONDS", 0.0)


def test_a_look_into_the_store_that_fails_is_retried(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Flaky(tasks.RETRIES, monkeypatch)
    result = in_flow(lambda: squared(3, store))
    assert Store(store).read(result.ref, Number).number == 9


def test_a_look_that_stays_without_answer_is_the_error_of_its_stage_alone(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcore.config import ComputeConfig
    from tlcore_flows import runners

    def wiring() -> list[Any]:
        refs = [number(value, store).ref for value in (1, 2, 3)]
        jobs = [
            StageJob(stage=name, subject=str(n), inputs={key: (ref,)})
            for n, (name, key, ref) in enumerate(
                zip(("total", "square", "square"), ("numbers", "number", "number"), refs, strict=True)
            )
        ]
        flaky = _Flaky(99, monkeypatch)
        with runners.Fleet(ComputeConfig(runner="threads", workers=2)) as fleet:
            found = list(tasks.stages(jobs, store=store, fleet=fleet))
        assert flaky.asked == 2 + tasks.RETRIES  # the second job's look is no patient one
        return found

    found = in_flow(wiring)
    assert isinstance(found[0], StageResult)
    assert [type(error) for error in found[1:]] == [RetryableError, RetryableError]


def test_a_look_that_fails_once_does_not_end_what_goes_to_workers(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcore.config import ComputeConfig
    from tlcore_flows import runners

    def wiring() -> list[Any]:
        job = StageJob(stage="square", subject="x", inputs={"number": (number(5, store).ref,)})
        _Flaky(1, monkeypatch)
        with runners.Fleet(ComputeConfig(runner="threads", workers=2)) as fleet:
            return list(tasks.stages([job], store=store, fleet=fleet))

    (result,) = in_flow(wiring)
    assert Store(store).read(result.ref, Number).number == 25

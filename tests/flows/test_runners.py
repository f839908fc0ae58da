"""Stages side by side: threads, a local Dask cluster and a local Ray give what one process gives."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import write_images, write_zoo
from tlcore.config import RunConfig, parse_config
from tlcore.errors import RetryableError, UserError
from tlcore.stages.base import StageJob
from tlcore.stages.values import FeatureFiles
from tlcore.store import Store
from tlcore.values import Interval, Ranking, Ref
from tlcore_flows import runners

CLUSTERS = [
    pytest.param(
        name, marks=pytest.mark.skipif(not all(map(find_spec, modules)), reason=f"no tlcore[{name}]")
    )
    for name, modules in runners.NEEDS.items()
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which two batches are scored, and two networks."""
    folder = tmp_path_factory.mktemp("runners")
    write_images(folder / "photos", 50, seed=1)
    write_zoo(folder / "zoo")
    return folder


def configured(place: Path, runner: str, *, shards: int = 2, **parts: Any) -> RunConfig:
    return parse_config(
        {
            "data": {"source": str(place / "photos")},
            "models": [f"local:{place / 'zoo'}"],
            "compute": {"runner": runner, "workers": 2, "shards": shards, **parts},
            "threads": 1,
        }
    )


def ranked(config: RunConfig, store: Path | str) -> Ranking:
    from tlcore_flows.rank import rank

    return Ranking.model_validate(rank(config, store=str(store)))


def assert_same(found: Ranking, expected: Ranking, tolerance: float) -> None:
    assert [entry.skipped for entry in found.entries] == [None, None]
    assert found.shortlist == expected.shortlist and found.images == expected.images
    for one, other in zip(found.entries, expected.entries, strict=True):
        assert (one.candidate, one.rank, one.notes) == (other.candidate, other.rank, other.notes)
        assert one.scores == pytest.approx(other.scores, rel=tolerance, abs=tolerance)
        assert one.draws.keys() == other.draws.keys()
        for name, interval in one.spread.items():
            assert (interval.low, interval.high) == pytest.approx(_ends(other.spread[name]), rel=tolerance)


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


@pytest.fixture(scope="module")
def alone(place: Path, prefect_server: None) -> Ranking:
    """The ranking of one process, one stage after another."""
    return ranked(configured(place, "sequential"), place / "alone")


def workers() -> list[Any]:
    """Processes below this one that work on tasks."""
    psutil = pytest.importorskip("psutil")
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "spawn_main" in line or line.startswith("ray::features"):
            found.append(process)
    return found


@pytest.fixture
def nobody_stays() -> Iterator[None]:
    """No process of a cluster outlives its run."""
    psutil = pytest.importorskip("psutil")
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + 30
    while left := [
        process.cmdline()
        for process in psutil.Process().children(recursive=True)
        if process.pid not in before and "resource_tracker" not in " ".join(process.cmdline())
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_shards_in_one_process_change_no_score(place: Path, alone: Ranking, tmp_path: Path) -> None:
    whole = ranked(configured(place, "sequential", shards=1), tmp_path)
    assert_same(whole, alone, 1e-7)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_threads_give_the_ranking_of_one_process(place: Path, alone: Ranking, tmp_path: Path) -> None:
    assert_same(ranked(configured(place, "threads"), tmp_path), alone, 1e-10)


def _ref(folder: Path) -> Ref:
    stage = folder.parent.name
    return Ref(stage=stage, key=folder.name, path=f"stages/{stage}/{folder.name}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server", "nobody_stays")
@pytest.mark.parametrize("runner", CLUSTERS)
def test_a_cluster_gives_the_ranking_of_one_process_though_a_worker_is_killed_and_starts_none_for_what_is_cached(
    runner: str, place: Path, alone: Ranking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    psutil = pytest.importorskip("psutil")
    features = tmp_path / "stages" / "features"
    killed: list[int] = []

    def half_done() -> list[Path]:
        return [path for path in features.iterdir() if path.name.startswith(".")] if features.is_dir() else []

    def kill() -> None:
        """Kill the first worker that holds the lock of a stage whose folder is half done."""
        while not over.wait(0.005):
            busy = {f"features-{path.name.split('.')[1]}.lock" for path in half_done()}
            for process in workers() if busy else ():
                with contextlib.suppress(psutil.Error):
                    if busy & {Path(file.path).name for file in process.open_files()}:
                        process.kill()
                        killed.append(process.pid)
                        return

    over = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = ranked(configured(place, runner), tmp_path)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1  # which costs a retry, and not the run
    assert_same(found, alone, 1e-10)
    assert half_done() == []
    store = Store.open(tmp_path)
    made = [store.read(_ref(folder), FeatureFiles) for folder in (store.root / "stages" / "merge").iterdir()]
    assert [len(value.shards) for value in made] == [2, 2]
    monkeypatch.setattr(runners.Fleet, "_started", lambda self: pytest.fail("a cluster for cached stages"))
    assert_same(ranked(configured(place, runner), tmp_path), alone, 1e-10)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server", "nobody_stays")
@pytest.mark.skipif(not find_spec("prefect_dask"), reason="no tlcore[dask]")
def test_two_workers_reach_the_store_by_its_url(
    place: Path, alone: Ranking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    submit = runners.Fleet.submit

    def counted(self: runners.Fleet, task: Any, parameters: dict[str, Any]) -> Any:
        future = submit(self, task, parameters)
        seen.update(process.pid for process in workers())
        return future

    monkeypatch.setattr(runners.Fleet, "submit", counted)
    monkeypatch.setenv("TLCORE_CACHE", str(tmp_path / "caches"))
    url = f"file://{tmp_path}/shared"
    assert_same(ranked(configured(place, "dask"), url), alone, 1e-10)
    assert len(seen) == 2
    # Another machine has the whole ranking without computing anything.
    monkeypatch.setenv("TLCORE_CACHE", str(tmp_path / "others"))
    from tlcore_flows.opened import open_store

    open_store.cache_clear()
    other = Store.open(url)
    keys = [folder.name for folder in (tmp_path / "shared" / "stages" / "score").iterdir()]
    assert len(keys) == 2 and all(other.find("score", key) for key in keys)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_one_candidate_that_fails_in_a_worker_is_left_out_and_named(place: Path, tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", ("test_resnet", "test_vit"))
    from safetensors.numpy import load_file, save_file

    weights = load_file(zoo / "test_vit.safetensors")
    save_file({name: value * float("nan") for name, value in weights.items()}, zoo / "test_vit.safetensors")
    config = configured(place, "threads").model_copy(
        update={"models": configured(tmp_path, "threads").models}
    )
    ranking = ranked(config, tmp_path / "store")
    assert ranking.best == "test_resnet"
    assert [entry.candidate for entry in ranking.entries if entry.skipped] == ["test_vit"]


def jobs_of(count: int) -> list[StageJob]:
    options = {"kind": "user", "times": 0}
    return [StageJob(stage="fails", subject=str(n), options=options, seed=n) for n in range(count)]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "stages")
def test_results_and_errors_come_in_the_order_of_their_jobs(place: Path, store: Path) -> None:
    from prefect import flow

    from tlcore_flows import tasks

    jobs = jobs_of(6)
    jobs[2] = jobs[2].model_copy(update={"options": {"kind": "user", "times": 9}})
    jobs[4] = jobs[4].model_copy(update={"options": {"kind": "bug", "times": 9}})

    @flow(name="test", persist_result=False)
    def run() -> list[Any]:
        found = []
        with runners.fleet(configured(place, "threads"), Store.open(store)) as fleet:
            try:
                for result in tasks.stages(jobs, store=store, fleet=fleet):
                    found.append(result if isinstance(result, UserError) else result.cached)
            except ZeroDivisionError as bug:
                found.append(str(bug))
        return found

    *first, error, after, bug = run()
    assert [*first, after, bug] == [False, False, False, "a bug"]
    assert isinstance(error, UserError) and error.what == "the input is wrong" and error.choices == ("a", "b")


def test_what_chooses_the_engine_travels_with_every_features_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcore.features.engines import hardware
    from tlcore_flows.rank import _engine

    def options(engine: str, bf16: str) -> dict[str, Any]:
        monkeypatch.setattr(hardware, "_bf16", lambda kind: bf16)
        selection = {"selection": {"engine": engine}}
        return _engine(parse_config(configured(tmp_path, "dask").model_dump(mode="json") | selection))

    facts = hardware.Hardware.of("cpu").facts()
    assert options("auto", "avx512") == {"hardware": {**facts, "bf16": "avx512"}}
    assert options("auto", "none") == {"hardware": {**facts, "bf16": "none"}}
    assert options("folded", "none") == options("folded", "matrix") == {"engine": "folded"}
    assert options("bf16", "matrix") == {"engine": "bf16", "hardware": {**facts, "bf16": "matrix"}}
    # Workers may have what this machine lacks.
    assert options("bf16", "none") == {"engine": "bf16"}


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_an_extra_that_is_missing_is_named_with_the_command(
    runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"packages of the {runner} runner") as caught:
        runners.check(configured(tmp_path, runner), Store.open(tmp_path / "store"))
    assert caught.value.hint == f'pip install "tlcore[{runner}]"'


@pytest.mark.parametrize(
    ("runner", "address", "message"),
    [
        ("threads", "tcp://127.0.0.1:8786", "no cluster at an address for the runner threads"),
        ("dask", "bad", '"bad" is no address of a cluster'),
        ("ray", "tcp://head:port", '"tcp://head:port" is no address of a cluster'),
        ("sequential", "ray://127.0.0.1:1", "no cluster at an address for the runner sequential"),
        ("dask", "tcp://192.0.2.7:8786", "workers on other machines cannot reach the Prefect server"),
        ("ray", "ray://head.example:10001", "workers on other machines cannot reach the Prefect server"),
    ],
)
def test_an_address_that_cannot_work_is_told_before_any_work(
    runner: str, address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda name: name)
    monkeypatch.setattr(runners, "_server", lambda: "http://127.0.0.1:4200/api")
    with pytest.raises(UserError, match=message):
        runners.check(configured(tmp_path, runner, address=address), Store.open(tmp_path / "store"))


@pytest.mark.parametrize("server", ["http://192.0.2.1:4200/api", "https://prefect.example/api"])
def test_a_server_that_others_reach_will_do(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda name: name)
    monkeypatch.setattr(runners, "_server", lambda: server)
    shared = Store.open(f"file://{tmp_path}/shared", cache=tmp_path / "cache")
    runners.check(configured(tmp_path, "dask", address="tcp://192.0.2.7:1"), shared)
    monkeypatch.setattr(runners, "_server", lambda: "http://127.0.0.1:4200/api")
    runners.check(configured(tmp_path, "dask", address="localhost:8786"), Store.open(tmp_path / "store"))


@pytest.mark.parametrize(
    ("runner", "address"), [("dask", "tcp://192.0.2.7:1"), ("ray", "ray://head.example:10001")]
)
def test_workers_elsewhere_need_a_store_with_a_url(
    runner: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda name: name)
    monkeypatch.setattr(runners, "_server", lambda: "http://192.0.2.1:4200/api")
    store = Store.open(tmp_path / "store")
    with pytest.raises(UserError, match="would find nothing in the store") as caught:
        runners.check(configured(tmp_path, runner, address=address), store)
    assert str(store.root) in caught.value.what and "--store s3://" in caught.value.hint
    runners.check(configured(tmp_path, runner, address="127.0.0.1:1"), store)


def test_a_store_in_memory_is_for_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda name: name)
    store = Store.open("memory:///runners", cache=tmp_path)
    with pytest.raises(UserError, match="a store in memory"):
        runners.check(configured(tmp_path, "ray"), store)
    runners.check(configured(tmp_path, "threads"), store)


@pytest.mark.parametrize(
    ("runner", "threads", "each"), [("threads", 0, 4), ("threads", 3, 3), ("sequential", 0, 0)]
)
def test_workers_share_the_processors(
    runner: str, threads: int, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_cores", lambda: 8)
    config = configured(tmp_path, runner).model_copy(update={"threads": threads})
    assert runners.threads_each(config) == each


def test_more_workers_than_processors_have_one_thread_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_cores", lambda: 1)
    assert runners.threads_each(configured(tmp_path, "dask").model_copy(update={"threads": 0})) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.skipif(not find_spec("prefect_dask"), reason="no tlcore[dask]")
def test_a_cluster_that_does_not_answer_is_retryable_and_named(
    place: Path,
) -> None:
    import dask.config
    import distributed  # noqa: F401 - it brings its defaults, which `set` would take away again if it came inside

    absent = configured(place, "dask", address="tcp://127.0.0.1:9").compute
    quick = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with quick, pytest.raises(RetryableError, match="dask runner cannot be started or reached") as caught:
        runners.Fleet(absent).submit(None, {})  # type: ignore[arg-type]
    assert caught.value.where == "tcp://127.0.0.1:9"
    wrong = configured(place, "dask", address="nonsense://x").compute
    with pytest.raises(UserError, match="no dask cluster can be reached"):
        runners.Fleet(wrong).submit(None, {})  # type: ignore[arg-type]

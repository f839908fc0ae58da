"""Where stages work side by side: the task runner of Prefect that `compute.runner` names.

    with fleet(config, store) as ships:
        futures = [ships.submit(task, {"job": job, "store": store.place}) for job in jobs]

sequential    no fleet: one stage after another through all cores
threads       threads of this process
dask, ray     processes of a local cluster, or of a running one on other machines (`compute.address`)

What travels to a worker is a job and the store's place, both small; arrays stay in the store. So workers on
other machines need a store that they reach as well, named by its URL (file:///FOLDER for a folder that all
machines mount), and a Prefect server that they reach. Weights of the source `local:` do not travel: they must
lie at the same path on every worker. A worker that dies costs its stage a new attempt on another one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tlcore.config import ComputeConfig, RunConfig
from tlcore.errors import RetryableError, TlcoreError, UserError
from tlcore.store import Store
from tlcore_flows import server

if TYPE_CHECKING:
    from prefect import Task
    from prefect.futures import PrefectFuture
    from prefect.task_runners import TaskRunner

__all__ = ["Fleet", "check", "fleet", "threads_each"]

NEEDS = {"dask": ("prefect_dask", "distributed"), "ray": ("prefect_ray", "ray")}
"""Modules of the extra of the same name."""

ADDRESSES = "tcp://HOST:8786 for Dask, ray://HOST:10001 for Ray"

WORKERS_WITHIN_SECONDS = 60.0
"""How long a running cluster may take to show its first worker."""

OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory that a local Ray cluster sets aside: only jobs and refs pass through it."""


def check(config: RunConfig, store: Store) -> None:
    """Look whether the runner can work before anything is computed.

    Raises:
        UserError: its extra is not installed; workers in other processes could not reach the store, or workers
            on other machines the store or the Prefect server.
    """
    compute = config.compute
    where = f'compute.runner = "{compute.runner}"'
    if compute.runner not in NEEDS:
        if compute.address is not None:
            raise UserError(
                f"there is no cluster at an address for the runner {compute.runner}",
                where="compute.address",
                hint="--runner dask or --runner ray",
            )
        return
    if compute.address is not None and not _is_address(compute.address):
        raise UserError(
            f'"{compute.address}" is no address of a cluster', where="compute.address", hint=ADDRESSES
        )
    if any(find_spec(module) is None for module in NEEDS[compute.runner]):
        raise UserError(
            f"the packages of the {compute.runner} runner are not installed",
            where=where,
            hint=f'pip install "tlcore[{compute.runner}]"',
        )
    if store.remote is not None and not store.remote.shared_between_processes:
        raise UserError(
            "a store in memory is seen by one process alone",
            where=where,
            hint="--store FOLDER or --store s3://BUCKET/FOLDER",
        )
    if compute.address is not None and _elsewhere(compute.address) and not _elsewhere(_server()):
        raise UserError(
            f"workers on other machines cannot reach the Prefect server at {_server()}",
            where="compute.address",
            hint="start one with `prefect server start --host 0.0.0.0` and set PREFECT_API_URL to its address",
        )
    if compute.address is not None and _elsewhere(compute.address) and store.remote is None:
        raise UserError(
            f"workers on other machines would find nothing in the store {store.place}",
            where="compute.address",
            hint="name a store that they reach: --store s3://BUCKET/FOLDER, or --store file:///FOLDER for a folder "
            "that all machines mount",
        )


def threads_each(config: RunConfig) -> int:
    """Processor threads of one stage among several: as configured, else an equal share of this machine's.

    On a running cluster 0, which is what the worker that runs it may use.
    """
    compute = config.compute
    if config.threads or compute.runner == "sequential" or compute.address is not None:
        return config.threads
    return max(1, _cores() // compute.workers)


@contextlib.contextmanager
def fleet(config: RunConfig, store: Store) -> Iterator[Fleet | None]:
    """The configured workers, who end with the block; None where stages run one after another."""
    check(config, store)
    if config.compute.runner == "sequential":
        yield None
        return
    with Fleet(config.compute) as ships:
        yield ships


class Fleet:
    """Workers that are started when the first task is submitted: what is cached needs none."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.compute = compute
        self._open = contextlib.ExitStack()
        self._runner: TaskRunner[Any] | None = None

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner = None
        self._open.__exit__(kind, error, traceback)

    def submit(self, task: Task[..., Any], parameters: dict[str, Any]) -> PrefectFuture[Any]:
        """Run a task on any worker.

        Raises:
            UserError: the cluster's address is none.
            RetryableError: the workers could not be started or reached.
        """
        if self._runner is None:
            with self._faults():
                self._runner = self._started()
        with self._faults():
            future: PrefectFuture[Any] = self._runner.submit(task, parameters)
            return future

    def result(self, future: PrefectFuture[Any]) -> Any:
        """What the task returned.

        Raises:
            TlcoreError: what the task raised; RetryableError when worker after worker died of it.
        """
        with self._faults():
            return future.result()

    def _started(self) -> TaskRunner[Any]:
        compute = self.compute
        if compute.runner == "threads":
            from prefect.task_runners import ThreadPoolTaskRunner

            return self._open.enter_context(ThreadPoolTaskRunner(max_workers=compute.workers))
        return self._dask() if compute.runner == "dask" else self._ray()

    def _dask(self) -> TaskRunner[Any]:
        from prefect_dask import DaskTaskRunner

        runner: TaskRunner[Any]
        if self.compute.address is not None:
            connected = DaskTaskRunner(address=self.compute.address)
            runner = self._open.enter_context(connected)
            connected.client.wait_for_workers(1, timeout=WORKERS_WITHIN_SECONDS)
            return runner
        kwargs = {
            "n_workers": self.compute.workers,
            "threads_per_worker": 1,
            "host": "127.0.0.1",
            # Whoever may connect may run code: a certificate of this run's own keeps other users out.
            "security": True,
            "protocol": "tls://",
            "dashboard_address": "127.0.0.1:0",
            "memory_limit": 0,  # pixels are mapped into memory, which Dask would take for a leak
            "local_directory": str(self._scratch("tlcore-dask-")),
            "silence_logs": logging.ERROR,
        }
        runner = self._open.enter_context(DaskTaskRunner(cluster_kwargs=kwargs))
        return runner

    def _ray(self) -> TaskRunner[Any]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Otherwise a task that asks Ray for no GPU, as ours do, sees none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        from prefect_ray import RayTaskRunner

        runner: TaskRunner[Any]
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.compute.address is not None:
            runner = self._open.enter_context(RayTaskRunner(address=self.compute.address, init_kwargs=quiet))
            return runner
        # Ray listens on every interface, and whoever may connect may run code: a token of this process keeps
        # others out, and none is written into the user's home.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        kwargs = quiet | {
            "num_cpus": self.compute.workers,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": str(self._scratch("tlcore-ray-")),
        }
        runner = self._open.enter_context(RayTaskRunner(init_kwargs=kwargs))
        return runner

    def _scratch(self, prefix: str) -> Path:
        """A folder that goes when the workers are gone. Its path is short: there are sockets in it."""
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        self._open.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What the cluster's own code raises, as an error of tlcore. A stage's error stays what it is."""
        try:
            yield
        except TlcoreError:
            raise
        except Exception as error:
            package = type(error).__module__.partition(".")[0]
            starting = self._runner is None
            if not starting and package not in {"distributed", "dask", "ray"} and not _crashed(error):
                raise  # a bug in a stage: its traceback says more than we could
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if starting and isinstance(error, ValueError):
                raise UserError(
                    f"no {self.compute.runner} cluster can be reached: {reason}",
                    where=f'compute.address = "{self.compute.address}"',
                    hint=ADDRESSES,
                ) from error
            what = "cannot be started or reached" if starting else "lost the workers of a stage"
            raise RetryableError(
                f"the {self.compute.runner} runner {what}: {type(error).__name__}: {reason}",
                where=self.compute.address or f"{self.compute.workers} local workers",
                hint="run the same command again: finished stages are kept. Workers that die often lack memory: "
                "fewer of them (--workers) or more --shards help",
            ) from error


def _crashed(error: Exception) -> bool:
    from prefect.exceptions import CrashedRun

    return isinstance(error, CrashedRun)


def _server() -> str:
    if not server.has_server():
        return "127.0.0.1"  # the one that will be started
    from prefect.settings import get_current_settings

    return str(get_current_settings().api.url or "127.0.0.1")


def _is_address(text: str) -> bool:
    """Whether a cluster could be there: a host and its port, or what Ray calls the one on this machine."""
    if text in {"auto", "local"}:
        return True
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        return bool(parts.hostname) and parts.port is not None
    except ValueError:
        return False


def _elsewhere(address: str) -> bool:
    """Whether an address (URL, HOST:PORT or HOST) is, as far as it says, on another machine."""
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    if host in {"", "localhost", "auto", "local"}:
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

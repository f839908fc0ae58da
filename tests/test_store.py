"""The run store: atomic, locked, content-addressed."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tlcore.errors import RetryableError, UserError
from tlcore.store import Store, Work, content_key, write_text
from tlcore.values import Chosen

VALUE = Chosen(candidate="resnet18", strategy="lp-ft")


def write(work: Work) -> None:
    (work.folder / "data.bin").write_bytes(b"x" * 1000)
    work.write(VALUE)


def test_a_result_is_computed_once_and_found_after(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.find("s", "k") is None
    ref, cached = store.compute("s", "k", write)
    assert not cached and store.read(ref, Chosen) == VALUE
    assert store.compute("s", "k", lambda work: pytest.fail("computed again")) == (ref, True)
    assert store.find("s", "k") == ref


def test_keys_differ_by_content_and_not_by_the_order_of_entries() -> None:
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1}) != content_key({"a": 1, "b": 3})


@pytest.mark.parametrize("library", ["numpy", "scikit-learn", "scipy", "timm", "torch", "torchvision"])
def test_an_upgrade_of_a_library_that_computes_changes_every_key(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcore import store

    before = content_key({"a": 1})
    real = store.version
    monkeypatch.setattr(store, "version", lambda name: "999" if name == library else real(name))
    store._libraries.cache_clear()
    try:
        assert content_key({"a": 1}) != before
    finally:
        store._libraries.cache_clear()


def test_a_failed_stage_leaves_nothing_that_looks_finished_and_its_scratch_stays(tmp_path: Path) -> None:
    store = Store.open(tmp_path)

    def fail(work: Work) -> None:
        (work.folder / "half").write_text("x")
        (work.scratch / "checkpoint").write_text("resume from here")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        store.compute("s", "k", fail)
    assert store.find("s", "k") is None and list((tmp_path / "stages" / "s").iterdir()) == []
    assert (store.scratch("s", "k") / "checkpoint").is_file()
    store.compute("s", "k", write)
    assert not store.scratch("s", "k").exists()


def test_a_stage_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="wrote no value"):
        Store.open(tmp_path).compute("s", "k", lambda work: None)


def test_two_at_once_compute_once_and_the_second_is_told_that_it_waits(tmp_path: Path) -> None:
    store, runs, told = Store.open(tmp_path), [], []

    def slow(work: Work) -> None:
        runs.append(1)
        time.sleep(0.5)
        write(work)

    threads = [
        threading.Thread(target=lambda: store.compute("s", "k", slow, waiting=lambda: told.append(1)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs == [1] and told == [1]


def test_a_killed_stage_frees_its_lock_and_its_rubbish_is_swept(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tlcore.store import Store\n"
        "def work(w):\n (w.folder/'half').write_text('x'); print('in', flush=True); time.sleep(60)\n"
        "Store.open(Path(sys.argv[1])).compute('s', 'k', work)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = Store.open(tmp_path)
    assert store.find("s", "k") is None
    _, cached = store.compute("s", "k", write)
    assert not cached and [path.name for path in (tmp_path / "stages" / "s").iterdir()] == ["k"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_store_is_retryable_and_keeps_nothing_half_written(tmp_path: Path, code: int) -> None:
    store = Store.open(tmp_path)

    def full(work: Work) -> None:
        (work.folder / "half").write_text("x")
        raise OSError(code, os.strerror(code))

    with pytest.raises(RetryableError, match="out of space") as caught:
        store.compute("s", "k", full)
    assert str(tmp_path) in str(caught.value) and list((tmp_path / "stages" / "s").iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_behind_a_librarys_own_error_is_recognised(tmp_path: Path) -> None:
    """A real limit on file size: torch, safetensors, polars and numpy each raise something of their own."""
    code = """
import resource, sys
from pathlib import Path
import numpy, polars, torch
from safetensors.torch import save_file
from tlcore.errors import RetryableError
from tlcore.store import Store
writers = {
    "torch": lambda f: torch.save({"x": torch.zeros(300_000)}, f / "x"),
    "safetensors": lambda f: save_file({"x": torch.zeros(300_000)}, f / "x"),
    "polars": lambda f: polars.DataFrame({"x": numpy.random.rand(300_000)}).write_parquet(f / "x"),
    "numpy": lambda f: numpy.save(f / "x", numpy.zeros(300_000)),
}
store = Store.open(Path(sys.argv[1]))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
for name, write in writers.items():
    try:
        store.compute("s", name, lambda work: write(work.folder))
    except RetryableError as error:
        assert "out of space" in str(error)
        print(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["torch", "safetensors", "polars", "numpy"], done.stderr
    assert list((tmp_path / "stages" / "s").iterdir()) == []


def test_a_denied_path_outside_the_store_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    def denied(work: Work) -> None:
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/image.jpg")

    with pytest.raises(PermissionError):
        Store.open(tmp_path).compute("s", "k", denied)


def test_a_half_deleted_result_is_computed_anew(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    ref, _ = store.compute("s", "k", write)
    (store.folder(ref) / "value.json").unlink()
    assert store.compute("s", "k", write) == (ref, False) and store.read(ref, Chosen) == VALUE


def test_a_store_that_cannot_be_written_is_the_callers_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written") as caught:
        Store.open(tmp_path / "file" / "store")
    assert "TLCORE_HOME" in caught.value.hint


def test_the_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    root = Store.open(tmp_path / "new").root
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_result_that_was_deleted_is_named(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    ref, _ = store.compute("s", "k", write)
    (store.folder(ref) / "value.json").unlink()
    with pytest.raises(UserError, match="is gone"):
        store.read(ref, Chosen)


def test_a_ref_cannot_leave_the_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    ref, _ = store.compute("s", "k", write)
    with pytest.raises(UserError, match="is gone"):
        store.folder(ref.model_copy(update={"path": "../../etc"}))


def test_text_is_replaced_in_one_step(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.json", "one")
    write_text(tmp_path / "a" / "b.json", "two")
    assert (tmp_path / "a" / "b.json").read_text() == "two" and len(list((tmp_path / "a").iterdir())) == 1

"""The store that several machines share: here, caches that do not know each other stand for machines."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcore.errors import RetryableError, TlcoreError, UserError
from tlcore.store import Store, Work
from tlcore.store_remote import Remote, cache_folder, is_url
from tlcore.values import Chosen

VALUE = Chosen(candidate="resnet18", strategy="lp-ft")


def write(work: Work) -> None:
    (work.folder / "deep").mkdir()
    (work.folder / "deep" / "data.bin").write_bytes(bytes(range(256)) * 10)
    work.write(VALUE)


def never(work: Work) -> None:
    pytest.fail("computed again")


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = f"{tmp_path}/shared" if request.param == "file" else f"/{uuid.uuid4().hex}"
    return f"{request.param}://{place}"


def test_what_one_machine_computed_another_finds_and_reads(url: str, tmp_path: Path) -> None:
    one, two = (Store.open(url, cache=tmp_path / name) for name in "ab")
    ref, cached = one.compute("s", "k", write)
    assert not cached
    assert two.compute("s", "k", never) == (ref, True)
    assert two.read(ref, Chosen) == VALUE
    assert (two.folder(ref) / "deep" / "data.bin").read_bytes() == bytes(range(256)) * 10
    assert two.root != one.root and two.place == one.place == url


def test_a_ref_that_travelled_is_downloaded_when_it_is_read(url: str, tmp_path: Path) -> None:
    ref, _ = Store.open(url, cache=tmp_path / "a").compute("s", "k", write)
    assert Store.open(url, cache=tmp_path / "b").read(ref, Chosen) == VALUE


def test_nothing_is_found_that_nobody_made(url: str, tmp_path: Path) -> None:
    store = Store.open(url, cache=tmp_path / "a")
    assert store.find("s", "k") is None
    ref, _ = store.compute("s", "k", write)
    with pytest.raises(UserError, match="is gone"):
        store.read(ref.model_copy(update={"key": "other", "path": "stages/s/other"}), Chosen)


def test_the_local_folder_alone_leads_to_the_shared_store(url: str, tmp_path: Path) -> None:
    Store.open(url, cache=tmp_path / "a").compute("s", "k", write)
    Store.open(url, cache=tmp_path / "b")
    again = Store.open(tmp_path / "b")
    assert again.place == url and again.compute("s", "k", never)[1]
    with pytest.raises(UserError, match="caches another store"):
        Store.open("memory://elsewhere", cache=tmp_path / "b")


def test_a_second_look_asks_the_shared_store_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(url, cache=tmp_path / "a")
    ref, _ = store.compute("s", "k", write)
    monkeypatch.setattr(Remote, "publish", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(Remote, "has", lambda *_: pytest.fail("asked"))
    assert store.find("s", "k") == ref and store.read(ref, Chosen) == VALUE


def test_what_was_deleted_in_the_shared_store_is_there_again_with_the_next_run(tmp_path: Path) -> None:
    url, shared = f"file://{tmp_path}/shared", tmp_path / "shared"
    ref, _ = Store.open(url, cache=tmp_path / "a").compute("s", "k", write)
    shutil.rmtree(shared / "stages" / "s" / "k")
    with pytest.raises(UserError, match="is gone") as caught:
        Store.open(url, cache=tmp_path / "b").read(ref, Chosen)
    assert "run the same command again" in caught.value.hint
    assert Store.open(url, cache=tmp_path / "a").compute("s", "k", never) == (ref, True)
    assert Store.open(url, cache=tmp_path / "b").read(ref, Chosen) == VALUE


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_the_advice_about_a_damaged_result_mends_it(tmp_path: Path, damage: str) -> None:
    url = f"file://{tmp_path}/shared"
    ref, _ = Store.open(url, cache=tmp_path / "a").compute("s", "k", write)
    (data,) = (tmp_path / "shared").rglob("data.bin")
    data.unlink() if damage == "missing" else data.write_bytes(b"x" + data.read_bytes()[1:])
    with pytest.raises(RetryableError, match="not what was written there") as caught:
        Store.open(url, cache=tmp_path / "b").read(ref, Chosen)
    assert caught.value.hint == "delete that folder and run the same command again"
    shutil.rmtree(caught.value.where.removeprefix("file://"))
    Store.open(url, cache=tmp_path / "a").find("s", "k")
    assert Store.open(url, cache=tmp_path / "b").read(ref, Chosen) == VALUE


def test_a_store_that_stays_open_asks_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(f"file://{tmp_path}/shared", cache=tmp_path / "a")
    store.compute("s", "k", write)
    shutil.rmtree(tmp_path / "shared" / "stages" / "s" / "k")
    assert store.remote is not None
    store.find("s", "k")
    assert not store.remote.has("s", "k")
    monkeypatch.setattr("tlcore.store.TRUSTED_SECONDS", 0.0)
    store.find("s", "k")
    assert store.remote.has("s", "k")


class _Failing(LocalFileSystem):  # type: ignore[misc]
    """A shared folder that fails at the n-th file that is written to it."""

    cachable = False
    left = 0

    def put_file(self, *args: Any, **kwargs: Any) -> None:
        self._count()
        super().put_file(*args, **kwargs)

    def pipe_file(self, *args: Any, **kwargs: Any) -> None:
        self._count()
        super().pipe_file(*args, **kwargs)

    def mv(self, *args: Any, **kwargs: Any) -> None:
        self._count()
        super().mv(*args, **kwargs)

    def _count(self) -> None:
        type(self).left -= 1
        if self.left < 0:
            raise TimeoutError("no route")


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_an_upload_that_breaks_at_any_step_is_invisible_and_is_made_good(tmp_path: Path, steps: int) -> None:
    """Two files, the entry's text, its move: the upload breaks before each of them."""
    url = f"file://{tmp_path}/shared"
    one, two = (Store.open(url, cache=tmp_path / name) for name in "ab")
    assert one.remote is not None
    sound = one.remote
    files = _Failing()
    type(files).left = steps
    one.remote = Remote(url, files, f"{tmp_path}/shared", upload="one")
    with pytest.raises(RetryableError, match="does not answer: TimeoutError: no route") as caught:
        one.compute("s", "k", write)
    assert caught.value.where == url
    assert two.find("s", "k") is None
    one.remote = sound
    ref, cached = one.compute("s", "k", never)
    assert cached and two.read(ref, Chosen) == VALUE


def test_an_uploader_that_is_killed_leaves_nothing_visible(tmp_path: Path) -> None:
    code = (
        "import sys, time; from tlcore.store import Store\n"
        "from fsspec.implementations.local import LocalFileSystem as F\n"
        "def stuck(*_):\n print('in', flush=True); time.sleep(60)\n"
        "F.mv = stuck\n"
        "from tlcore.values import Chosen; from pathlib import Path\n"
        "store = Store.open(sys.argv[1], cache=Path(sys.argv[2]))\n"
        "store.compute('s', 'k', lambda w: w.write(Chosen(candidate='c', strategy='t')))"
    )
    url = f"file://{tmp_path}/shared"
    arguments = [sys.executable, "-c", code, url, str(tmp_path / "a")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list((tmp_path / "shared").rglob("value.json"))
    other = Store.open(url, cache=tmp_path / "b")
    assert other.find("s", "k") is None
    # The one that was killed has its result, and publishes it when it looks again.
    ref, cached = Store.open(url, cache=tmp_path / "a").compute("s", "k", never)
    assert cached and other.read(ref, Chosen).candidate == "c"


def test_two_machines_at_once_leave_one_whole_result(url: str, tmp_path: Path) -> None:
    """The double work is harmless: whichever entry counts, its files are those that it names."""
    stores = [Store.open(url, cache=tmp_path / name) for name in "abcd"]
    barrier = threading.Barrier(len(stores))
    errors: list[BaseException] = []

    def work(number: int) -> Any:
        def body(place: Work) -> None:
            (place.folder / "data").write_text(str(number) * (1000 + number))
            barrier.wait()
            place.write(VALUE)

        return body

    def run(number: int) -> None:
        try:
            stores[number].compute("s", "k", work(number))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    fresh = Store.open(url, cache=tmp_path / "fresh")
    ref = fresh.find("s", "k")
    assert ref is not None
    text = (fresh.folder(ref) / "data").read_text()
    assert text == text[0] * (1000 + int(text[0]))


def test_a_file_that_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    ref, _ = Store.open(url, cache=tmp_path / "a").compute("s", "k", write)
    (data,) = (tmp_path / "shared").rglob("data.bin")
    data.write_bytes(b"x" + data.read_bytes()[1:])
    reader = Store.open(url, cache=tmp_path / "b")
    with pytest.raises(RetryableError, match=r"deep/data.bin of stage s is not what was written"):
        reader.read(ref, Chosen)
    assert [path for path in (reader.root / "stages").rglob("*") if path.is_file()] == []


def test_an_entry_cannot_write_outside_the_cache(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    store = Store.open(url, cache=tmp_path / "a")
    for document in (
        {"upload": "u", "files": {"../../../escape": [1, "0"]}},
        {"upload": "/etc", "files": {"passwd": [1, "0"]}},
        {"upload": "u", "files": {"x": [1]}},
        {"files": {}},
        [],
    ):
        entry = tmp_path / "shared" / "stages" / "s" / "k" / "entry.json"
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.write_text(json.dumps(document))
        with pytest.raises(UserError, match="not an entry of a store"):
            store.find("s", "k")


def test_a_result_that_left_the_cache_comes_back_without_work(url: str, tmp_path: Path) -> None:
    store = Store.open(url, cache=tmp_path / "a")
    ref, _ = store.compute("s", "k", write)
    (store.folder(ref) / "value.json").unlink()
    assert store.compute("s", "k", never) == (ref, True)
    assert (store.folder(ref) / "deep" / "data.bin").stat().st_size == 2560


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nosuchthing://bucket/x", "no file system for this store: Protocol not known: nosuchthing"),
        ("abfs://container/x", "a package for this kind of store is missing"),
        ("file:///dev/null/x", "cannot be used"),
        ("dir://x", "dir:// cannot be opened by this URL alone"),
        ("github://x", "github:// cannot be opened by this URL alone"),
        ("reference://x", "reference:// cannot be opened by this URL alone"),
        ("zip://x", "zip:// cannot be opened by this URL alone"),
    ],
)
def test_a_place_that_cannot_be_a_store_is_the_callers_to_mend(
    place: str, message: str, tmp_path: Path
) -> None:
    if place.startswith("abfs") and find_spec("adlfs"):
        pytest.skip("the package is installed here")
    with pytest.raises(UserError, match=message) as caught:
        Store.open(place, cache=tmp_path / "a")
    assert caught.value.where == place and caught.value.hint
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), UserError)  # noqa: S301 - made here


@pytest.mark.parametrize(
    "place", ["file://", "file:///", "memory://", "s3://", "simplecache::file:///shared"]
)
def test_a_url_without_a_place_or_of_two_file_systems_is_refused_and_makes_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLCORE_CACHE", str(tmp_path / "caches"))
    with pytest.raises(UserError, match="names no place|on one file system") as caught:
        Store.open(place)
    assert "s3://BUCKET/FOLDER" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_refuses_the_connection_is_named_as_the_store_that_does_not_answer(
    tmp_path: Path,
) -> None:
    with pytest.raises(RetryableError, match="the shared store does not answer: ConnectionRefused") as caught:
        Store.open("ftp://127.0.0.1:1/x", cache=tmp_path / "a")
    assert caught.value.where == "ftp://127.0.0.1:1/x"


def test_tlcore_home_may_be_a_url(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLCORE_CACHE", str(tmp_path / "caches"))
    monkeypatch.setenv("TLCORE_HOME", url + "/")
    store = Store.open()
    assert store.place == url and store.root == cache_folder(url) == Store.local_root()
    assert store.root.is_relative_to(tmp_path / "caches")
    ref, _ = store.compute("s", "k", write)
    assert Store.open(url, cache=tmp_path / "b").read(ref, Chosen) == VALUE


def test_a_folder_has_no_shared_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a")
    store.compute("s", "k", write)
    assert store.remote is None and store.place == str(store.root)


@pytest.mark.parametrize(
    ("place", "url"), [("C:\\x", False), ("/a/b", False), ("a://b", False), ("s3://b/x", True), (None, False)]
)
def test_a_drive_letter_is_no_protocol(place: str | None, url: bool) -> None:
    assert is_url(place) is url


@given(names=st.lists(st.text("abc./ _-é", min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
@settings(max_examples=25, deadline=None)
def test_any_files_come_through_whole(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    place, folder = tmp_path_factory.mktemp("files"), f"memory:///{uuid.uuid4().hex}"

    def body(work: Work) -> None:
        for number, name in enumerate(names):
            (work.folder / f"{number}-{name.replace('/', '')}").write_bytes(name.encode() * number)
        work.write(VALUE)

    ref, _ = Store.open(folder, cache=place / "a").compute("s", "k", body)
    one, two = Store.open(place / "a").folder(ref), Store.open(folder, cache=place / "b").folder(ref)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}


def test_every_error_of_a_file_system_is_one_of_ours(tmp_path: Path) -> None:
    class Odd(Exception):
        pass

    class Broken(fsspec.AbstractFileSystem):  # type: ignore[misc]
        cachable = False

        def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
            raise Odd("a client's own")

    remote = Remote("odd://x", Broken(), "/x", upload="u")
    for call in (lambda: remote.has("s", "k"), lambda: remote.fetch("s", "k", tmp_path)):
        with pytest.raises(TlcoreError, match="Odd: a client's own"):
            call()

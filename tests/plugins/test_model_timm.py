from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from tlcore.errors import UnknownName, UserError
from tlcore.models.sizes import timm_version_of_table
from tlcore.models.weights import sha256_of
from tlcore.values import Candidate
from tlcore_models.timm import Timm

NAME = "test_resnet.r160_in1k"


def put_in_cache(cache: Path, name: str = NAME, architecture: str | None = None) -> dict[str, torch.Tensor]:
    """A randomly initialised network where the hub would have left the pretrained one."""
    state = timm.create_model(architecture or name.split(".")[0]).state_dict()
    folder, commit = cache / f"models--timm--{name}", "0" * 40
    for part in ("refs", "blobs", f"snapshots/{commit}"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    save_file(state, folder / "blobs" / "b")
    (folder / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/b")
    return dict(state)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def source(spec: str, cache: Path, **options: object) -> Timm:
    return Timm.model_validate({"spec": spec, "cache_dir": str(cache)} | options)


@pytest.mark.usefixtures("no_network")
class TestOffline:
    @pytest.mark.parametrize("spec", ["test_resnet", NAME])
    def test_cached_weights_become_a_candidate_with_timms_preprocessing(
        self, tmp_path: Path, spec: str
    ) -> None:
        put_in_cache(tmp_path)
        (one,) = source(spec, tmp_path).candidates()
        assert (one.name, one.architecture, one.classes) == (NAME, "test_resnet", 1000)
        assert one.weights == "hub"
        assert one.weights_sha256 == sha256_of(tmp_path / f"models--timm--{NAME}" / "blobs" / "b")
        config = timm.data.resolve_model_data_config(timm.create_model(NAME))
        assert one.preprocess is not None
        assert (3, one.preprocess.height, one.preprocess.width) == config["input_size"]
        assert (one.preprocess.crop_pct, one.preprocess.interpolation) == (
            config["crop_pct"],
            config["interpolation"],
        )
        assert (one.preprocess.mean, one.preprocess.std) == (config["mean"], config["std"])

    @pytest.mark.parametrize(("classes", "outputs"), [(None, 1000), (0, 96), (5, 5)])
    def test_cached_weights_fill_the_network(self, tmp_path: Path, classes: int | None, outputs: int) -> None:
        state = put_in_cache(tmp_path)
        (one,) = source("test_resnet", tmp_path).candidates()
        again = Timm.model_validate(one.source["options"])
        network = again.build(Candidate.model_validate_json(one.model_dump_json()), classes=classes)
        assert not network.training and network(torch.zeros(2, 3, 64, 64)).shape == (2, outputs)
        built = network.state_dict()
        same = [name for name in state if name in built and torch.equal(built[name], state[name])]
        assert set(state) - set(same) == (set() if classes is None else {"fc.weight", "fc.bias"})

    def test_without_pretrained_nothing_is_loaded(self, tmp_path: Path) -> None:
        state = put_in_cache(tmp_path)
        (one,) = source("test_resnet", tmp_path).candidates()
        random = source("test_resnet", tmp_path).build(one, pretrained=False).state_dict()
        assert not torch.equal(random["conv1.0.weight"], state["conv1.0.weight"])

    def test_a_name_that_is_not_cached_is_an_error_with_both_ways_on(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            source("test_resnet", tmp_path).candidates()
        assert "--allow-download" in str(caught.value) and "local:" in str(caught.value)

    def test_a_glob_takes_the_cached_ones_and_skips_the_others_with_the_remedy(self, tmp_path: Path) -> None:
        put_in_cache(tmp_path)
        found = {one.name: one for one in source("test_*", tmp_path).candidates()}
        assert found[NAME].skipped is None
        others = [one for name, one in found.items() if name != NAME]
        assert len(others) >= 5 and all("--allow-download" in str(one.skipped) for one in others)

    def test_weights_that_left_the_cache_are_an_error_when_built(self, tmp_path: Path) -> None:
        put_in_cache(tmp_path)
        (one,) = source("test_resnet", tmp_path).candidates()
        with pytest.raises(UserError, match="--allow-download"):
            source("test_resnet", tmp_path / "empty").build(one)

    def test_cached_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        put_in_cache(tmp_path, architecture="test_byobnet")
        (one,) = source("test_resnet", tmp_path).candidates()
        with pytest.raises(UserError, match="cannot be loaded"):
            source("test_resnet", tmp_path).build(one, classes=3)

    def test_cached_weights_that_changed_are_refused(self, tmp_path: Path) -> None:
        put_in_cache(tmp_path)
        (one,) = source("test_resnet", tmp_path).candidates()
        with pytest.raises(UserError, match="not those that were listed"):
            source("test_resnet", tmp_path).build(one.model_copy(update={"weights_sha256": "0" * 64}))

    def test_a_misspelt_name_offers_the_nearest(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownName) as caught:
            source("resnet81", tmp_path).candidates()
        assert caught.value.nearest == "resnet18" and len(caught.value.choices) <= 8

    def test_an_architecture_without_published_weights_is_told_apart(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no pretrained weights"):
            source("test_mambaout", tmp_path).candidates()

    def test_a_glob_of_too_many_or_none_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"more than the limit of 3"):  # and the hub is not asked
            source("test_*", tmp_path, limit=3, allow_download=True).candidates()
        with pytest.raises(UserError, match="no pretrained model of timm matches"):
            source("nothing_*", tmp_path).candidates()

    def test_of_a_glob_only_those_with_weights_here_count_towards_the_limit(self, tmp_path: Path) -> None:
        put_in_cache(tmp_path)
        found = source("test_*", tmp_path, limit=1).candidates()
        assert len(found) > 10 and [one.name for one in found if not one.skipped] == [NAME]
        put_in_cache(tmp_path, architecture="test_byobnet", name="test_byobnet.r160_in1k")
        with pytest.raises(UserError, match=r"brings 2 models, more than the limit of 1"):
            source("test_*", tmp_path, limit=1).candidates()
        assert len(source("test_*", tmp_path, limit=1).listing()) == len(found)

    def test_those_that_cannot_be_had_do_not_count_towards_the_limit(self, tmp_path: Path) -> None:
        found = source("gcvit*", tmp_path).listing()  # none of them is on the hub
        assert len(found) > 2 and all("not on the hub" in (one.skipped or "") for one in found)
        assert len(source("gcvit*", tmp_path, limit=1, allow_download=True).candidates()) == len(found)

    def test_a_listing_asks_no_network_even_where_a_download_is_allowed(self, tmp_path: Path) -> None:
        assert source("resnet1[08]*", tmp_path, allow_download=True).listing()

    def test_a_listing_takes_a_single_name_whose_weights_are_elsewhere(self, tmp_path: Path) -> None:
        (one,) = source("resnet18", tmp_path).listing()
        assert one.name == "resnet18.a1_in1k" and one.params and "local hub cache" in (one.skipped or "")

    def test_a_glob_with_a_tag_matches_tags_and_without_one_architectures(self, tmp_path: Path) -> None:
        plain = {one.name for one in source("resnet1[08]t*", tmp_path).candidates()}
        tagged = {one.name for one in source("resnet18.*", tmp_path).candidates()}
        assert plain == {"resnet10t.c3_in1k"}
        assert tagged == set(timm.list_pretrained("resnet18.*")) and len(tagged) > 1


LISTING = """
import json, sys
import timm, torch
from tlcore.models.sizes import read_table
from tlcore_models.timm import Timm
opened, built = [], []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
plain = torch.nn.Module.__init__
def counted(self, *given, **named):
    built.append(type(self).__name__)
    plain(self, *given, **named)
torch.nn.Module.__init__ = counted
found = Timm(spec="*", limit=5000, cache_dir=sys.argv[1]).candidates()
place = lambda one: (one.architecture, one.preprocess.height, one.preprocess.width)
lacking = [one.name for one in found if one.preprocess and place(one) not in read_table()]
weights = [name for name in opened if name.endswith((".safetensors", ".bin", ".pth", ".pt")) or "/blobs/" in name]
print(json.dumps({
    "candidates": [one.model_dump(mode="json") for one in found], "lacking": lacking, "weights": weights, "built": len(built),
}))
"""


@pytest.mark.slow
def test_a_thousand_models_are_listed_with_their_cost_without_weights_and_without_a_network(
    tmp_path: Path,
) -> None:
    put_in_cache(tmp_path)
    blob = tmp_path / f"models--timm--{NAME}" / "blobs" / "b"
    named = blob.with_name(sha256_of(blob))
    link = next(tmp_path.rglob("model.safetensors"))
    blob.rename(named)  # as the hub cache names large files
    link.unlink()
    link.symlink_to(f"../../blobs/{named.name}")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LISTING, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    found = {one["name"]: Candidate.model_validate(one) for one in said["candidates"]}
    assert len(found) >= 1000 and said["weights"] == []
    assert said["built"] == 0 or said["lacking"], "a network was built although the table has it"
    if timm.__version__ == timm_version_of_table():
        assert said["lacking"] == []
    assert [one.name for one in found.values() if one.skipped is None] == [NAME]
    assert found[NAME].weights_sha256 == named.name
    costed = [one for one in found.values() if one.params and one.gmacs and one.onnx_bytes]
    assert len(costed) > 0.98 * len(found)
    assert sum(one.licence != "unknown" for one in found.values()) > 0.9 * len(found)
    assert found["resnet18.a1_in1k"].params == 11_176_512


def test_a_model_whose_images_cannot_be_prepared_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """timm pads images for a crop larger than they are; no rule of ours says that."""
    (one,) = source("volo_d5_51*", tmp_path).candidates()
    assert "crop_pct 1.15" in (one.skipped or "") and one.params is None


SCRIPT = """
import json, sys
from tlcore.errors import TlcoreError
from tlcore_models.timm import Timm
outcome = {}
for name in sys.argv[2:]:
    source = Timm(spec=name, allow_download=True, cache_dir=sys.argv[1])
    try:
        (one,) = source.candidates()
        built = sum(float(p.abs().sum()) for p in source.build(one).parameters())
        (again,) = source.candidates()
        outcome[name] = [one == again, one.weights_sha256, built]
    except TlcoreError as error:
        outcome[name] = [type(error).__name__, str(error)]
print(json.dumps(outcome))
"""


class Hub(BaseHTTPRequestHandler):
    """Stands in for the hub: serves one repository, and fails in three ways for others."""

    weights = b""
    digest = ""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if "test_byobnet" in self.path:
            self.close_connection = True  # no status line: the connection breaks off
            return
        if "test_convnext" in self.path:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if "test_resnet" not in self.path or "model.safetensors" not in self.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{self.digest}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(self.weights)))
        self.end_headers()
        if body:
            self.wfile.write(self.weights)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    import hashlib

    state = timm.create_model(NAME).state_dict()
    Hub.weights = save(state)
    Hub.digest = hashlib.sha256(Hub.weights).hexdigest()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", dict(state)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_an_allowed_download_fetches_once_and_a_hub_that_fails_is_told_apart(
    tmp_path: Path, hub: tuple[str, dict[str, torch.Tensor]]
) -> None:
    endpoint, state = hub
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    names = ["test_resnet", "test_convnext", "test_byobnet", "test_efficientnet"]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cache"), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    unchanged, digest, built = outcome["test_resnet"]
    assert unchanged, "the candidate differs before and after the download"
    assert digest == Hub.digest
    parameters = timm.create_model(NAME).named_parameters()
    assert built == pytest.approx(sum(float(state[name].abs().sum()) for name, _ in parameters), rel=1e-5)
    assert outcome["test_convnext"][0] == "RetryableError" and "HTTP 503" in outcome["test_convnext"][1]
    assert outcome["test_byobnet"][0] == "RetryableError" and "local:FOLDER" in outcome["test_byobnet"][1]
    assert (
        outcome["test_efficientnet"][0] == "UserError"
        and "no such repository" in outcome["test_efficientnet"][1]
    )


@pytest.mark.slow
def test_a_download_that_the_environment_forbids_is_the_users_to_mend(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cache"), "test_resnet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kind, said = json.loads(done.stdout)["test_resnet"]
    assert kind == "UserError" and "HF_HUB_OFFLINE" in said

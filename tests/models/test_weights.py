from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tlcore.errors import UserError
from tlcore.models.build import head_modules
from tlcore.models.weights import load_into, read_metadata, read_weights, sha256_of


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_safetensors_and_torch_files_give_the_same_tensors(tmp_path: Path) -> None:
    state = small().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    one, other = read_weights(tmp_path / "a.safetensors"), read_weights(tmp_path / "a.pth")
    assert one.keys() == other.keys() == state.keys()
    assert all(
        torch.equal(one[name], state[name]) and torch.equal(other[name], state[name]) for name in state
    )


def test_a_training_checkpoint_gives_its_inner_weights_without_wrapper_prefixes(tmp_path: Path) -> None:
    state = small().state_dict()
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(wrapped, tmp_path / "c.pth")
    assert read_weights(tmp_path / "c.pth").keys() == state.keys()


def test_code_in_a_checkpoint_is_refused_and_never_runs(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"weight": torch.zeros(1), "more": Hostile(trace)}, tmp_path / "h.pth")
    with pytest.raises(UserError, match="not readable as plain tensors") as caught:
        read_weights(tmp_path / "h.pth")
    assert not trace.exists()
    assert "never code" in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["t.safetensors", "t.pth"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    save_file(small().state_dict(), tmp_path / "whole.safetensors")
    torch.save(small().state_dict(), tmp_path / "whole.pth")
    path = tmp_path / name
    path.write_bytes((tmp_path / f"whole{path.suffix}").read_bytes()[:-40])
    with pytest.raises(UserError, match=name):
        read_weights(path)


def test_other_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"npz.*\n.*safetensors"):
        read_weights(tmp_path / "w.npz")
    with pytest.raises(UserError, match="no such weights file"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("content", "said"), [({"lr": 0.1}, "more than tensors: lr"), ([1], "a list"), ({}, "no tensors")]
)
def test_a_file_of_other_things_than_tensors_is_refused(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(UserError, match=said):
        read_weights(tmp_path / "c.pt")


def test_digest_and_metadata_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.arange(5.0)}, path, metadata={"architecture": "resnet18"})
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_metadata(path) == {"architecture": "resnet18"}
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="bad.safetensors"):
        read_metadata(tmp_path / "bad.safetensors")


def test_half_precision_files_fill_a_float_network() -> None:
    network, other = small(), small()
    load_into(
        network,
        {name: t.half() if t.is_floating_point() else t for name, t in other.state_dict().items()},
        where="x",
    )
    for name, tensor in network.state_dict().items():
        expected = other.state_dict()[name].numpy()
        assert tensor.dtype == other.state_dict()[name].dtype
        if tensor.is_floating_point():
            np.testing.assert_array_equal(tensor.numpy(), expected.astype(np.float16).astype(np.float32))


def test_misfits_are_named_with_both_shapes_and_five_at_most() -> None:
    state = dict(small().state_dict())
    state["0.weight"] = torch.zeros(7, 3)
    state |= {f"extra{number}": torch.zeros(1) for number in range(8)}
    del state["1.bias"]
    before = small()
    kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_into(before, state, where="entry x")
    said = str(caught.value)
    assert "0.weight: file 7x3, architecture 4x3" in said
    assert "missing in the file (1): 1.bias" in said
    assert "unknown to the architecture (8): extra0, extra1, extra2, extra3, extra4 and 3 more" in said
    assert said.startswith("entry x: ") and "extra5" not in said
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.state_dict().items())


def test_the_counter_of_batch_norm_may_be_absent() -> None:
    state = {name: tensor for name, tensor in small().state_dict().items() if "num_batches" not in name}
    load_into(small(), state, where="x")


def test_a_fresh_head_stays_as_it_was_initialised_and_the_backbone_is_strict() -> None:
    given = small().state_dict()
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 9))
    head = network.state_dict()["2.weight"].clone()
    load_into(network, given, where="x", head=("2",), fresh_head=True)
    loaded = network.state_dict()
    assert torch.equal(loaded["2.weight"], head) and torch.equal(loaded["0.weight"], given["0.weight"])
    without = {name: tensor for name, tensor in given.items() if not name.startswith("2.")}
    load_into(network, without, where="x", head=("2",), fresh_head=True)
    with pytest.raises(UserError, match="missing in the file"):
        load_into(network, without, where="x", head=("2",))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["levit_128s", "test_convnext", "test_efficientnet", "test_byobnet"])
def test_a_file_with_a_head_fills_the_network_without_one(architecture: str) -> None:
    full = timm.create_model(architecture, num_classes=7)
    bare = timm.create_model(architecture, num_classes=0)
    load_into(bare, full.state_dict(), where="x", head=head_modules(architecture), fresh_head=True)
    for name, tensor in bare.state_dict().items():
        assert torch.equal(tensor, full.state_dict()[name])

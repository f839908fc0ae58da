from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tlcore.errors import UserError
from tlcore.values import Candidate
from tlcore_models.local import Local


def save(
    path: Path, architecture: str = "test_resnet", classes: int = 4, metadata: dict[str, str] | None = None
) -> dict[str, torch.Tensor]:
    state = timm.create_model(architecture, num_classes=classes).state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path, metadata=metadata)
    else:
        torch.save(state, path)
    return dict(state)


def write_index(folder: Path, name: str, file: str) -> None:
    entry = {
        "file": file, "architecture": "test_resnet", "num_classes": 4, "input_size": [3, 32, 32],
        "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "modality": "image",
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps({name: entry}))


def only(spec: Path | str) -> Candidate:
    (candidate,) = Local(spec=str(spec)).candidates()
    return candidate


def test_a_folder_is_read_through_its_index(tmp_path: Path) -> None:
    state = save(tmp_path / "w.safetensors")
    write_index(tmp_path, "mine", "w.safetensors")
    candidate = only(tmp_path)
    assert candidate.name == "mine" and candidate.preprocess is not None and candidate.preprocess.height == 32
    network = Local(spec=str(tmp_path)).build(candidate)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_the_named_source_builds_the_same_network_from_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "w.safetensors")
    write_index(tmp_path, "mine", "w.safetensors")
    monkeypatch.chdir(tmp_path)
    (candidate,) = Local(spec=".").candidates()
    candidate = Candidate.model_validate_json(candidate.model_dump_json())
    os.chdir("/")
    assert candidate.source["name"] == "local"
    again = Local(**candidate.source["options"])
    assert again.candidates() == (candidate,)
    assert again.build(candidate, classes=0)(torch.zeros(1, 3, 32, 32)).shape == (1, 96)


def test_a_file_beside_an_index_is_described_by_it(tmp_path: Path) -> None:
    save(tmp_path / "w.safetensors")
    write_index(tmp_path, "mine", "w.safetensors")
    candidate = only(tmp_path / "w.safetensors")
    assert candidate.name == "mine"
    assert Local(**candidate.source["options"]).candidates() == (candidate,)


@pytest.mark.parametrize("name", ["test_resnet.mine.safetensors", "test_resnet.pth"])
def test_a_file_may_be_named_after_its_architecture(tmp_path: Path, name: str) -> None:
    state = save(tmp_path / name, classes=7)
    candidate = only(tmp_path / name)
    assert (candidate.architecture, candidate.classes) == ("test_resnet", 7)
    assert candidate.preprocess is not None and candidate.preprocess.height == 160
    built = Local(spec=str(tmp_path / name)).build(candidate).state_dict()
    assert all(torch.equal(built[key], state[key]) for key in state)


def test_metadata_say_the_architecture_of_any_file(tmp_path: Path) -> None:
    save(tmp_path / "final.safetensors", "test_byobnet", metadata={"architecture": "test_byobnet"})
    assert only(tmp_path / "final.safetensors").architecture == "test_byobnet"


def test_a_file_without_an_architecture_is_refused_with_the_ways_to_name_it(tmp_path: Path) -> None:
    save(tmp_path / "final.safetensors")
    with pytest.raises(UserError) as caught:
        only(tmp_path / "final.safetensors")
    assert all(
        way in str(caught.value) for way in ("resnet18.final.safetensors", '{"architecture"', "index.json")
    )


def test_a_file_of_another_architecture_does_not_fit(tmp_path: Path) -> None:
    save(tmp_path / "test_byobnet.x.safetensors", "test_resnet")
    candidate = only(tmp_path / "test_byobnet.x.safetensors")
    with pytest.raises(UserError, match="do not fit ByobNet"):
        Local(spec="x").build(candidate)


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder or file"):
        only(tmp_path / "none")

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tlcore.errors import UserError
from tlcore.models.local_index import IndexEntry, candidates_in, read_index
from tlcore.models.weights import sha256_of


def entry(**fields: Any) -> dict[str, Any]:
    return {
        "file": "a.safetensors", "architecture": "test_resnet", "kwargs": {}, "num_classes": 4,
        "input_size": [3, 32, 48], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic",
        "pretrained_on": "squares", "modality": "image", "known_to_timm": True, "licence": "MIT",
    } | fields  # fmt: skip


def write(folder: Path, **entries: Any) -> Path:
    (folder / "index.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(timm.create_model("test_resnet", num_classes=4).state_dict(), tmp_path / "a.safetensors")
    return tmp_path


def listed(folder: Path, **options: Any) -> dict[str, Any]:
    reference = {"spec": str(folder)}
    return {one.name: one for one in candidates_in(folder, source="local", options=reference, **options)}


def test_an_entry_becomes_a_candidate_with_all_that_the_index_says(folder: Path) -> None:
    one = listed(write(folder, mine=entry()))["mine"]
    assert one.skipped is None and one.source == {"name": "local", "options": {"spec": str(folder)}}
    assert (one.architecture, one.classes, one.licence, one.pretrained_on) == (
        "test_resnet",
        4,
        "MIT",
        "squares",
    )
    assert one.preprocess.model_dump() == {
        "height": 32, "width": 48, "resize": "crop", "crop_pct": 0.875, "interpolation": "bicubic",
        "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6),
    }  # fmt: skip
    assert one.weights_sha256 == sha256_of(folder / "a.safetensors")
    bare = timm.create_model("test_resnet", num_classes=0)
    assert one.params == sum(p.numel() for p in bare.parameters())


def test_crop_resize_and_prior_may_be_given(folder: Path) -> None:
    one = listed(write(folder, mine=entry(crop_pct=1.0, resize="squash", prior=71.5)))["mine"]
    assert (one.preprocess.crop_pct, one.preprocess.resize, one.prior) == (1.0, "squash", 71.5)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"modality": "audio", "input_size": [1, 96, 64], "mean": None, "std": None}, "made for audio"),
        ({"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}, "takes 1 channels"),
        ({"kwargs": {"in_chans": 4}}, "takes 4 channels"),
        (
            {"architecture": "resnet18_of_nobody"},
            r'"resnet18_of_nobody": install a plugin.*name that model source',
        ),
        ({"file": "gone.safetensors"}, "gone.safetensors is not in the folder"),
        ({"kwargs": {"colour": "red"}}, "timm cannot create test_resnet"),
    ],
)
def test_what_cannot_take_part_is_skipped_with_the_reason(
    folder: Path, fields: dict[str, Any], reason: str
) -> None:
    found = listed(write(folder, good=entry(), bad=entry(**fields)))
    assert found["good"].skipped is None
    import re

    assert re.search(reason, found["bad"].skipped)


@pytest.mark.parametrize(
    "field", [name for name, info in IndexEntry.model_fields.items() if info.is_required()]
)
def test_a_missing_field_is_named_with_its_entry(folder: Path, field: str) -> None:
    broken = entry()
    del broken[field]
    with pytest.raises(UserError, match=f'entry "broken": field "{field}" is missing'):
        read_index(write(folder, fine=entry(), broken=broken))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"colour": 1}, 'field "colour" is not a field of an entry'),
        ({"num_classes": -1}, 'field "num_classes"'),
        ({"input_size": [3, 32]}, 'field "input_size'),
        ({"input_size": [3, 32, 0]}, "must be positive"),
        ({"input_size": [3, 4, 4]}, "sides from 8"),
        ({"mean": None}, '"mean" of an image entry'),
        ({"std": [0.5, 0.5]}, '"std" of an image entry'),
        ({"std": [0.5, 0.0, 0.5]}, '"std" must be positive'),
        ({"interpolation": "magic"}, 'field "interpolation"'),
        ({"architecture": "../x"}, 'field "architecture"'),
    ],
)
def test_a_wrong_field_is_named_with_its_entry(folder: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_index(write(folder, broken=entry(**fields)))
    assert 'entry "broken"' in str(caught.value) and said in str(caught.value)


@given(st.sampled_from(["../a.safetensors", "/etc/passwd", "x/../../y.safetensors", "..", "a/../../../b"]))
def test_a_file_never_leaves_its_folder(tmp_path_factory: pytest.TempPathFactory, file: str) -> None:
    folder = write(tmp_path_factory.mktemp("w"), mine=entry(file=file))
    with pytest.raises(UserError, match="leaves the folder"):
        read_index(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "w.safetensors"
    outside.write_bytes(b"")
    (folder / "link.safetensors").symlink_to(outside)
    with pytest.raises(UserError, match="leaves the folder"):
        read_index(write(folder, mine=entry(file="link.safetensors")))


@pytest.mark.parametrize("content", ["{", "[]", "{}", "null"])
def test_an_index_that_is_no_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match="index.json"):
        read_index(tmp_path)


def test_a_folder_without_index_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no index.json in the folder"):
        read_index(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_index(tmp_path / "none")


def test_include_chooses_by_glob_and_must_match(folder: Path) -> None:
    write(folder, resnet_a=entry(), resnet_b=entry(), other=entry())
    assert list(listed(folder, include=("resnet_*",))) == ["resnet_a", "resnet_b"]
    with pytest.raises(UserError, match=r"matches no entry\n  known: other, resnet_a, resnet_b"):
        listed(folder, include=("vit*",))

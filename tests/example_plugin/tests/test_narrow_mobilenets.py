from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tlcore_example._architectures import NARROW
from tlcore_example.narrow_mobilenets import NarrowMobileNets

from tlcore.errors import UserError
from tlcore.models.build import shipped_with_timm
from tlcore.values import Candidate


def write_index(folder: Path, **architectures: str) -> Path:
    index = {}
    for name, architecture in architectures.items():
        network = timm.create_model(architecture, num_classes=6)
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        index[name] = {
            "file": f"{name}.safetensors", "architecture": architecture, "kwargs": {"pad_type": "same"},
            "num_classes": 6, "input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3,
            "interpolation": "bilinear", "modality": "image",
        }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.slow
def test_exactly_the_entries_that_need_it_are_listed(tmp_path: Path) -> None:
    folder = write_index(
        tmp_path, thin="mobilenetv1_025", edge="mobilenet_edgetpu_075", plain="mobilenetv2_035"
    )
    found = NarrowMobileNets(spec=str(folder)).candidates()
    assert [one.name for one in found] == ["thin", "edge"] and all(one.skipped is None for one in found)
    assert [one.name for one in NarrowMobileNets(spec=str(folder), everything=True).candidates()] == [
        "thin",
        "edge",
        "plain",
    ]


def test_a_candidate_is_built_again_from_its_own_description(tmp_path: Path) -> None:
    folder = write_index(tmp_path, thin="mobilenetv1_025")
    (one,) = NarrowMobileNets(spec=str(folder)).candidates()
    one = Candidate.model_validate_json(one.model_dump_json())
    assert one.source["name"] == "narrow-mobilenets"
    source = NarrowMobileNets(**one.source["options"])
    for classes, outputs in ((None, 6), (0, 256), (2, 2)):
        network = source.build(one, classes=classes)
        with torch.inference_mode():
            assert network(torch.zeros(1, 3, 64, 64)).shape == (1, outputs)


def test_an_index_that_needs_no_narrow_network_is_an_error(tmp_path: Path) -> None:
    folder = write_index(tmp_path, plain="mobilenetv2_035")
    with pytest.raises(UserError, match="no entry of the index needs"):
        NarrowMobileNets(spec=str(folder)).candidates()


@pytest.mark.parametrize("architecture", sorted(NARROW))
def test_the_networks_are_registered_with_timm_and_padded_as_they_were_trained(architecture: str) -> None:
    assert timm.is_model(architecture) and not shipped_with_timm(architecture)
    network = timm.create_model(architecture, num_classes=0)
    assert "Conv2dSame" in {type(module).__name__ for module in network.modules()}
    assert network.pretrained_cfg["architecture"] == architecture


@pytest.mark.slow
@pytest.mark.shared
def test_the_five_real_networks_are_listed_and_know_a_cat(shared_data: Path) -> None:
    import numpy as np
    from PIL import Image

    source = NarrowMobileNets(spec=str(shared_data / "weights"))
    found = source.candidates()
    assert {one.name for one in found} == {
        "mobilenet_edgetpu_075", "mobilenetv1_025.r128", "mobilenetv1_025", "mobilenetv1_050", "mobilenetv1_075",
    }  # fmt: skip
    photo = Image.open(shared_data / "photos" / "cat_720p.jpg").convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    for one in found:
        assert one.skipped is None and one.preprocess is not None
        square = photo.crop((left, top, left + side, top + side)).resize((one.preprocess.width,) * 2)
        pixels = (np.asarray(square) / 255 - one.preprocess.mean) / one.preprocess.std
        with torch.inference_mode():
            logits = source.build(one)(torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float())
        assert 281 <= int(logits.argmax()) <= 287, one.name

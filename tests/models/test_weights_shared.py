"""Against real pretrained networks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tlcore.models.local_index import read_index
from tlcore.values import Candidate
from tlcore_models.local import Local

pytestmark = pytest.mark.shared

KNOWN = {
    "mobilenetv1_100", "mobilenetv2_035.features", "mobilenetv2_100.inat_bird", "mobilenetv2_100.inat_insect",
    "mobilenetv2_100", "mobilenetv2_100.tf2",
}  # fmt: skip
NARROW = {
    "mobilenet_edgetpu_075",
    "mobilenetv1_025.r128",
    "mobilenetv1_025",
    "mobilenetv1_050",
    "mobilenetv1_075",
}


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    return shared_data / "weights"


@pytest.fixture(scope="module")
def listed(weights: Path) -> dict[str, Candidate]:
    return {one.name: one for one in Local(spec=str(weights)).candidates()}


def test_six_take_part_five_name_the_remedy_and_the_audio_network_is_left_out(
    listed: dict[str, Candidate],
) -> None:
    assert {name for name, one in listed.items() if one.skipped is None} == KNOWN
    for name in NARROW:
        said = listed[name].skipped or ""
        assert listed[name].architecture in said and "install a plugin" in said
    assert "audio" in (listed["mobilenetv1_100.yamnet"].skipped or "")
    assert len(listed) == 12


@pytest.mark.slow
def test_every_network_that_takes_part_is_built_whole_from_its_file(
    weights: Path, listed: dict[str, Candidate]
) -> None:
    source, index = Local(spec=str(weights)), read_index(weights)
    images = torch.zeros(1, 3, 224, 224)
    for name in KNOWN:
        network = source.build(listed[name])
        with torch.inference_mode():
            assert network(images).shape[1] == (index[name].num_classes or 1280)
            assert source.build(listed[name], classes=2)(images).shape == (1, 2)
        assert all(p.dtype == torch.float32 for p in network.parameters())


def pixels_of(path: Path, candidate: Candidate) -> torch.Tensor:
    how = candidate.preprocess
    assert how is not None
    image = Image.open(path).convert("RGB")
    scale = round(how.height / how.crop_pct) / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - how.width) // 2, (image.height - how.height) // 2
    values = np.asarray(image.crop((left, top, left + how.width, top + how.height))) / 255
    return torch.from_numpy(((values - how.mean) / how.std).transpose(2, 0, 1)).float()


@pytest.mark.slow
def test_the_index_gives_same_padding_and_the_network_knows_real_photographs(
    shared_data: Path, weights: Path, listed: dict[str, Candidate]
) -> None:
    one = listed["mobilenetv2_100"]
    network = Local(spec=str(weights)).build(one)
    default = timm.create_model("mobilenetv2_100")
    default.load_state_dict(network.state_dict())
    right, photos = 0, []
    for line in (shared_data / "photos" / "labels.tsv").read_text().splitlines():
        name, label = line.split("\t")
        span = re.search(r"\((\d+)(?:-(\d+))?\)$", label)
        if span is None or "only daisy" in label or name == "owl.jpg":  # no such ImageNet class
            continue
        pixels = pixels_of(shared_data / "photos" / name, one)
        photos.append(pixels)
        with torch.inference_mode():
            best = int(network(pixels[None]).argmax())
        right += int(span[1]) <= best <= int(span[2] or span[1])
    assert len(photos) >= 8 and right >= len(photos) - 1
    with torch.inference_mode():
        difference = (network(torch.stack(photos)) - default.eval()(torch.stack(photos))).abs().max()
    assert difference > 0.1, "padding made no difference: kwargs of the index were not passed"

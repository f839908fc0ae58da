from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tlcore.errors import UserError
from tlcore.models.build import (
    build_network,
    create_network,
    default_preprocess,
    head_classes,
    preprocess_of,
    shipped_with_timm,
)
from tlcore.models.weights import sha256_of
from tlcore.values import Candidate, Preprocess

SMALL = Preprocess(height=32, width=32)


def candidate(architecture: str = "test_resnet", **fields: object) -> Candidate:
    return Candidate.model_validate(
        {"name": "n", "source": {}, "architecture": architecture, "classes": 5, "preprocess": SMALL} | fields
    )


@pytest.fixture
def saved(tmp_path: Path) -> Candidate:
    network = timm.create_model("test_resnet", num_classes=5)
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    return candidate(weights=str(path), weights_sha256=sha256_of(path))


@pytest.mark.parametrize(("classes", "outputs"), [(None, 5), (0, 96), (3, 3)])
def test_the_head_is_kept_removed_or_fresh(saved: Candidate, classes: int | None, outputs: int) -> None:
    network = build_network(saved, classes=classes)
    assert not network.training
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, outputs)


def test_the_backbone_holds_the_file_and_a_random_initialisation_does_not(saved: Candidate) -> None:
    kept, bare = build_network(saved), build_network(saved, classes=0)
    images = torch.randn(2, 3, 32, 32)
    features = kept.forward_head(kept.forward_features(images), pre_logits=True)  # type: ignore[operator]
    torch.testing.assert_close(bare(images), features)
    random = build_network(saved, pretrained=False)
    assert not torch.equal(
        random.state_dict()["layer1.0.conv1.weight"], kept.state_dict()["layer1.0.conv1.weight"]
    )


def test_weights_that_changed_since_they_were_listed_are_refused(saved: Candidate) -> None:
    assert saved.weights is not None
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), Path(saved.weights))
    with pytest.raises(UserError, match="changed since"):
        build_network(saved)


def test_weights_of_another_architecture_are_refused_by_name(saved: Candidate) -> None:
    with pytest.raises(UserError, match=r"do not fit ByobNet.*missing in the file"):
        build_network(saved.model_copy(update={"architecture": "test_byobnet"}))


def test_a_vision_transformer_gets_its_image_size() -> None:
    network = create_network(candidate("test_vit"))
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_arguments_reach_timm_and_wrong_ones_are_named() -> None:
    same = create_network(candidate("mobilenetv2_035", arguments={"pad_type": "same"}))
    assert "Conv2dSame" in {type(module).__name__ for module in same.modules()}
    with pytest.raises(UserError, match=r"colour='red'"):
        create_network(candidate(arguments={"colour": "red"}))


def test_an_unregistered_architecture_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"nobody registered.*\n.*install the plugin"):
        create_network(candidate("mobilenetv1_999"))


def test_head_classes_are_read_from_the_file() -> None:
    assert (
        head_classes("test_convnext", timm.create_model("test_convnext", num_classes=11).state_dict()) == 11
    )
    assert head_classes("test_convnext", timm.create_model("test_convnext", num_classes=0).state_dict()) == 0


def test_timm_configurations_become_preprocessing() -> None:
    assert default_preprocess("test_resnet") == Preprocess(
        height=160, width=160, crop_pct=0.95, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    squashed = preprocess_of({"input_size": (3, 20, 30), "crop_mode": "squash", "crop_pct": 0.9}, where="x")
    assert (squashed.height, squashed.width, squashed.resize, squashed.crop_pct) == (20, 30, "squash", 1.0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"input_size": (1, 96, 64)}, "takes 1 channels"),
        ({"interpolation": "hamming"}, 'interpolation "hamming"'),
        ({"crop_mode": "border"}, 'crop mode "border"'),
    ],
)
def test_what_preprocessing_cannot_say_is_refused(config: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        preprocess_of(config, where="x")


def test_only_architectures_of_timm_itself_count_as_shipped() -> None:
    assert shipped_with_timm("resnet18") and not shipped_with_timm("resnet18_of_a_stranger")

"""Extraction against the plain network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tlcore.errors import PluginError, UserError
from tlcore.features.extract import extract
from tlcore.features.files import load_features, save_features
from tlcore.features.folding import folded
from tlcore.features.normalisation import normalise
from tlcore.values import Preprocess

PREPROCESS = Preprocess(height=64, width=64)


def _network(name: str, **arguments: object) -> nn.Module:
    """A random network whose batch norms do something."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, **arguments).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network


def _pixels(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def _plain(network: nn.Module, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and probabilities, one image at a time, normalised in float64 by hand."""
    features, probabilities = [], []
    for image in pixels:
        scaled = (image / 255.0 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
        batch = torch.from_numpy(scaled.transpose(2, 0, 1)[None]).float()
        with torch.no_grad():
            maps = network.forward_features(batch)
            features.append(network.forward_head(maps, pre_logits=True)[0].numpy())
            probabilities.append(network(batch).softmax(1)[0].numpy())
    return np.stack(features), np.stack(probabilities)


@pytest.mark.parametrize(
    ("name", "norms"),
    [("test_resnet", True), ("test_efficientnet", True), ("mobilenetv2_035", True), ("test_convnext", False)],
)
def test_folded_features_and_probabilities_are_those_of_the_plain_network(name: str, norms: bool) -> None:
    network = _network(name, pad_type="same") if name == "mobilenetv2_035" else _network(name)
    pixels = _pixels(11)
    found = extract(network, pixels, PREPROCESS, head=True, batch_size=4, engine="folded")
    features, probabilities = _plain(network, pixels)
    cosine = (found.features * features).sum(1) / (
        np.linalg.norm(found.features, axis=1) * np.linalg.norm(features, axis=1)
    )
    assert cosine.min() > 0.9999
    assert np.abs(found.features - features).max() < 1e-4 * np.abs(features).max()
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-5)
    assert found.features.dtype == found.probabilities.dtype == np.float32
    expected = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert found.folded == expected and (expected > 0) == norms


def test_the_callers_network_is_left_as_it_was() -> None:
    network = _network("test_resnet").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kinds = [type(module) for module in network.modules()]
    extract(network, _pixels(3), PREPROCESS, head=True)
    after = network.state_dict()
    assert network.training and [type(module) for module in network.modules()] == kinds
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_network_without_a_head_gives_features_alone() -> None:
    bare = _network("test_resnet", num_classes=0)
    found = extract(bare, _pixels(3), PREPROCESS, head=True)
    assert found.probabilities is None and found.features.shape == (3, bare.num_features)
    assert extract(_network("test_resnet"), _pixels(3), PREPROCESS, head=False).probabilities is None


def test_a_transformer_runs_unfolded() -> None:
    network = _network("test_vit", img_size=64)
    found = extract(network, _pixels(3), PREPROCESS, head=True, engine="folded")
    features, _ = _plain(network, _pixels(3))
    np.testing.assert_allclose(found.features, features, atol=1e-5)
    assert found.folded == 0


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_features_that_are_no_vector_are_averaged_over_positions(name: str) -> None:
    arguments = {"img_size": 64} if name == "test_vit" else {}
    network = _network(name, num_classes=0, global_pool="", **arguments)
    found = extract(network, _pixels(2), PREPROCESS, head=False, engine="folded").features
    with torch.no_grad():
        maps = network.forward_features(normalise(torch.from_numpy(_pixels(2)), PREPROCESS))
    wanted = maps.mean((2, 3)) if maps.ndim == 4 else maps.mean(1)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


class _Weighed(nn.Conv2d):
    """A convolution that does more to its weights than its base class: must never be folded."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight / self.weight.norm()
        return nn.functional.conv2d(x, weight, self.bias)


class _Tiny(nn.Module):
    """A network of timm's shape with a convolution whose output is read twice."""

    num_classes = 0
    num_features = 6

    def __init__(self, *, twice: bool, kind: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.norm, self.twice = kind(3, 6, 1), nn.BatchNorm2d(6), twice
        self.norm.running_mean.fill_(0.5)
        self.norm.running_var.fill_(4.0)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.norm(x) * x if self.twice else self.norm(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x.mean((2, 3))

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


def test_a_fold_that_would_change_the_features_is_seen_and_dropped() -> None:
    network = _Tiny(twice=True).eval()
    twin, count = folded(network, torch.zeros(1, 3, 64, 64))
    x = normalise(torch.from_numpy(_pixels(2)), PREPROCESS)
    with torch.no_grad():
        plain = network.forward_head(network.forward_features(x))
        assert count == 1 and not torch.allclose(
            twin.forward_head(twin.forward_features(x)), plain, rtol=1e-2
        )
    found = extract(network, _pixels(2), PREPROCESS, head=False, engine="folded")
    assert found.folded == 0 and found.engine == "eager"
    assert found.note.startswith("folded: ") and found.note.endswith("; computed by eager")
    np.testing.assert_allclose(found.features, plain.numpy(), rtol=1e-4)
    assert extract(_Tiny(twice=False), _pixels(2), PREPROCESS, head=False, engine="folded").folded == 1


def test_a_convolution_of_a_kind_of_its_own_is_not_folded() -> None:
    assert folded(_Tiny(twice=False, kind=_Weighed).eval(), torch.zeros(1, 3, 8, 8))[1] == 0


def test_damaged_weights_are_named_with_the_model() -> None:
    network = _network("test_resnet")
    nn.init.constant_(next(network.parameters()), float("nan"))
    with pytest.raises(UserError, match="broken-net.*NaN or infinite, first for image 0"):
        extract(network, _pixels(2), PREPROCESS, head=True, name="broken-net")


def test_a_network_that_is_no_timm_network_is_refused() -> None:
    with pytest.raises(PluginError, match="no forward_features"):
        extract(nn.Sequential(nn.Flatten()), _pixels(1), PREPROCESS, head=False)


@pytest.mark.parametrize(
    "pixels",
    [_pixels(2, 32), _pixels(2).astype(np.float32), _pixels(2)[0], _pixels(0)],
    ids=["size", "type", "one image", "none"],
)
def test_pixels_that_do_not_fit_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(UserError, match="pixels must be|no images"):
        extract(_network("test_resnet"), pixels, PREPROCESS, head=False)


def test_progress_counts_images_and_memory_maps_are_read_in_batches(tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", _pixels(7))
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    seen: list[tuple[int, int]] = []
    network = _network("test_resnet")
    found = extract(
        network,
        mapped,
        PREPROCESS,
        head=False,
        batch_size=3,
        engine="folded",
        on_progress=lambda done, n: seen.append((done, n)),
    )
    assert seen == [(3, 7), (6, 7), (7, 7)]
    whole = extract(network, _pixels(7), PREPROCESS, head=False, engine="folded")
    np.testing.assert_allclose(found.features, whole.features, rtol=1e-4, atol=1e-5)


def test_files_give_back_features_by_sample_id(tmp_path: Path) -> None:
    found = extract(_network("test_resnet"), _pixels(4), PREPROCESS, head=True)
    ids = ["a.png", "é/ü.png", "c", "d\n"]
    save_features(tmp_path, found, ids)
    stored = load_features(tmp_path)
    assert isinstance(stored.features, np.memmap) and stored.sample_ids == tuple(ids)
    np.testing.assert_array_equal(stored.features, found.features)
    np.testing.assert_array_equal(stored.probabilities, found.probabilities)
    assert stored.rows(["c", "a.png"]).tolist() == [2, 0]
    with pytest.raises(UserError, match="no features of 1 images, for example nowhere"):
        stored.rows(["c", "nowhere"])


def test_damaged_or_foreign_feature_files_are_a_clear_error(tmp_path: Path) -> None:
    found = extract(_network("test_resnet"), _pixels(4), PREPROCESS, head=False)
    for wrong in (["a", "b"], ["a", "a", "b", "c"]):
        with pytest.raises(UserError, match="sample_ids"):
            save_features(tmp_path, found, wrong)
    with pytest.raises(UserError, match="not readable as features"):
        load_features(tmp_path)
    save_features(tmp_path, found, list("abcd"))
    (tmp_path / "sample_ids.json").write_text('["a"]')
    with pytest.raises(UserError, match="1 sample_ids for features of shape"):
        load_features(tmp_path)
    save_features(tmp_path, found, list("abcd"))
    file = tmp_path / "features.npy"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="delete the folder"):
        load_features(tmp_path)

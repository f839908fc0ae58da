"""Heads as modules: their formulas, how a solved one is put in, and that each kind is exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tlcore.errors import PluginError
from tlcore.protocols import ExportJob
from tlcore.training.head_layers import Neighbours, UnitLinear
from tlcore.training.network import Network, make_network
from tlcore.training.plan import Solved
from tlcore.values import Bottleneck, Head, Preprocess
from tlcore_exporters.onnx import Onnx

PREPROCESS = Preprocess(height=32, width=32, crop_pct=1.0)
D, K = 6, 3


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def solved(kind: str, d: int = D, seed: int = 0) -> Solved:
    rng = np.random.default_rng(seed)
    linear = {"weight": rng.normal(size=(K, d)), "bias": rng.normal(size=K)}
    if kind == "linear":
        return Solved(linear)
    if kind == "unit":
        return Solved({**linear, "centre": rng.normal(size=d)}, Head(kind="unit"))
    votes = np.eye(K)[np.arange(9) % K]
    head = Head(kind="neighbours", images=9, neighbours=4, temperature=0.2, floor=0.05)
    return Solved({"bank": unit(rng.normal(size=(9, d))), "votes": votes, "centre": rng.normal(size=d)}, head)


def with_head(given: Solved) -> Network:
    network = Network(nn.Identity(), D, K)
    network.set_head(given, fit="mine")
    return network


def test_a_unit_head_is_linear_in_the_direction_from_the_centre() -> None:
    given, x = solved("unit"), np.random.default_rng(1).normal(size=(5, D))
    z = unit(x - given.tensors["centre"])
    expected = z @ given.tensors["weight"].T + given.tensors["bias"]
    got = with_head(given)(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_neighbours_answer_with_the_log_of_their_weighted_votes(k: int) -> None:
    """Against a loop over images and neighbours."""
    given, x = solved("neighbours"), np.random.default_rng(1).normal(size=(5, D))
    given = replace(given, head=given.head.model_copy(update={"neighbours": k}))
    expected = np.zeros((5, K))
    for i, z in enumerate(unit(x - given.tensors["centre"])):
        cosines = given.tensors["bank"] @ z
        for j in np.argsort(-cosines)[:k]:
            expected[i] += np.exp(cosines[j] / 0.2) * given.tensors["votes"][j]
    expected = 0.95 * expected / expected.sum(1, keepdims=True) + 0.05 / K
    got = with_head(given)(torch.from_numpy(x).float())
    np.testing.assert_allclose(got.exp().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(got.softmax(1).numpy(), expected, atol=1e-5)


def test_all_images_as_near_as_the_last_neighbour_vote() -> None:
    bank = np.array([[1.0, 0], [1, 0], [0, 1]])
    head = Head(kind="neighbours", images=3, neighbours=1, floor=1e-6)
    network = Network(nn.Identity(), 2, 2)
    votes = np.array([[1.0, 0], [0, 1], [0, 1]])
    network.set_head(Solved({"bank": bank, "votes": votes, "centre": np.zeros(2)}, head))
    np.testing.assert_allclose(network(torch.tensor([[2.0, 0.1]])).exp().numpy(), [[0.5, 0.5]], atol=1e-4)


@pytest.mark.parametrize("kind", ["unit", "neighbours"])
def test_an_image_at_the_centre_has_finite_logits(kind: str) -> None:
    given = solved(kind)
    assert torch.isfinite(with_head(given)(torch.from_numpy(given.tensors["centre"][None]).float())).all()


@pytest.mark.parametrize("kind", ["linear", "unit", "neighbours"])
def test_a_network_is_built_again_from_its_shape_and_tensors(kind: str) -> None:
    first = with_head(solved(kind))
    shape = Head.model_validate(first.head_shape.model_dump())
    again, later = Network(nn.Identity(), D, K, head=shape), Network(nn.Identity(), D, K)
    later.put_head(shape)
    x = torch.randn(4, D)
    for other in (again, later):
        other.load_state_dict(first.state_dict())
        assert torch.equal(other(x), first(x)) and other.head_shape == shape
    assert shape.kind == kind and first.feature_dim == D and first.head.out_features == K
    rest = first.on_features()
    assert rest.head is first.head and torch.equal(rest(x), first(x))


def test_a_fresh_head_after_neighbours_is_linear() -> None:
    network = with_head(solved("neighbours"))
    network.renew_head(Bottleneck(width=4))
    assert type(network.head) is nn.Linear and network(torch.randn(3, D)).shape == (3, K)


def test_solving_a_head_takes_no_draw_from_the_seed() -> None:
    network = Network(nn.Identity(), D, K)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    network.set_head(solved("unit"))
    assert torch.equal(torch.rand(1), expected)


def test_gradients_reach_the_features_through_every_head() -> None:
    for kind in ("linear", "unit", "neighbours"):
        x = torch.randn(4, D, requires_grad=True)
        with_head(solved(kind))(x).log_softmax(1)[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


def broken(case: str) -> Solved:
    good = solved("neighbours" if case in {"votes", "bank", "k"} else "unit")
    tensors = dict(good.tensors)
    if case == "missing":
        del tensors["centre"]
    elif case == "shape":
        tensors["weight"] = tensors["weight"][:2]
    elif case == "finite":
        tensors["bias"] = np.array([0, np.nan, 0])
    elif case == "float32":
        tensors["bias"] = np.array([0, 1e300, 0])
    elif case == "votes":
        tensors["votes"] = 2 * tensors["votes"]
    elif case == "bank":
        tensors["bank"] = 2 * tensors["bank"]
    head = good.head.model_copy(update={"neighbours": 10}) if case == "k" else good.head
    return Solved(tensors, head)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", 'tensors bias, weight for a head of kind "unit"; it has bias, centre, weight'),
        ("shape", r"gave weight \(2, 6\); \(3, 6\) expected"),
        ("finite", "bias with values that are not finite"),
        ("float32", "bias with values that are not finite in float32"),
        ("votes", "votes that are no shares"),
        ("bank", "longer than 1"),
        ("k", "10 neighbours of 9 stored directions"),
    ],
)
def test_a_head_that_breaks_the_contract_is_refused_by_name(case: str, message: str) -> None:
    network = Network(nn.Identity(), D, K)
    with pytest.raises(PluginError, match=f'the head fit "mine".*{message}'):
        network.set_head(broken(case), fit="mine")
    assert type(network.head) is nn.Linear


def test_a_bottleneck_without_norm_is_a_dense_layer_with_torchs_own_start() -> None:
    torch.manual_seed(0)
    network = Network(nn.Identity(), D, K, Bottleneck(width=5, dropout=0.25, norm=False)).eval()
    linear, relu, dropout = network.bottleneck
    torch.manual_seed(0)
    expected = nn.Linear(D, 5)
    assert torch.equal(linear.weight, expected.weight) and torch.equal(linear.bias, expected.bias)
    assert isinstance(relu, nn.ReLU) and dropout.p == 0.25
    x = torch.randn(4, D)
    assert torch.equal(network.features(x), torch.relu(linear(x)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unit", "neighbours"])
def test_every_kind_of_head_is_exported_with_a_dynamic_batch(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    network = make_network(backbone, K, preprocess=PREPROCESS)
    network.set_head(solved(kind, network.feature_dim))
    assert isinstance(network.head, UnitLinear | Neighbours)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    scaled = (pixels / 255 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
    images = torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()
    with torch.no_grad():  # the centre where the features are, so that directions tell images apart
        network.head.centre.copy_(network.embed(images).mean(0))
        expected = network.eval()(images).softmax(1).numpy()
    names = tuple(f"c{k}" for k in range(K))
    value = Onnx().export(ExportJob(network, PREPROCESS, names, {}, tmp_path))
    assert "capture by torch.export failed" not in caplog.text
    for count in (1, 2, 7):
        answer = Onnx().predict(tmp_path / value.path, pixels[:count])
        np.testing.assert_allclose(answer, expected[:count], atol=1e-4)

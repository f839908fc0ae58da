from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.conftest import PREPROCESS, separable_images, tiny_network
from tlcore.training.network import Network, make_network
from tlcore.training.plan import Solved
from tlcore.training.predict import predict, predict_features


def numbers(scale: float = 10.0, shift: float = 50.0) -> Network:
    network = make_network(tiny_network().backbone, 1, preprocess=PREPROCESS, task="regression")
    network.output_scale.fill_(scale)
    network.output_shift.fill_(shift)
    return network


def test_an_untrained_head_answers_the_mean_of_the_labels() -> None:
    pixels, _ = separable_images(3, 0)
    _, answers = predict(numbers(), pixels, np.arange(3), PREPROCESS)
    assert answers.tolist() == [[50.0]] * 3


def test_a_solved_head_in_the_unit_of_the_labels_answers_in_it() -> None:
    network = numbers()
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(1, network.feature_dim)), np.array([7.0])
    network.set_head(Solved({"weight": weight, "bias": bias}))
    embedded = rng.normal(size=(5, network.backbone_dim)).astype(np.float32)
    _, answers = predict_features(network, embedded)
    assert answers == pytest.approx(embedded @ weight.T + bias, rel=1e-4, abs=1e-4)


def test_the_scale_is_saved_and_stays_with_a_network_on_features() -> None:
    network = numbers()
    again = make_network(tiny_network().backbone, 1, preprocess=PREPROCESS, task="regression")
    again.load_state_dict(network.state_dict())
    assert (float(again.output_scale), float(again.output_shift)) == (10, 50)
    assert torch.equal(network.on_features()(torch.zeros(2, network.backbone_dim)), torch.full((2, 1), 50.0))
    assert network.on_features().task == "regression"


def test_networks_of_classes_and_tags_carry_no_scale() -> None:
    for task in ("classification", "multi-label"):
        network = Network(nn.Identity(), 4, 2, task=task)  # type: ignore[arg-type]
        assert set(network.state_dict()) == {"head.weight", "head.bias"}
        x = torch.randn(3, 4)
        assert torch.equal(network(x), network.head(x))


def test_tags_are_answered_each_by_itself() -> None:
    network = Network(nn.Identity(), 2, 3, task="multi-label")
    _, answers = predict_features(network, np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32))
    with torch.no_grad():
        assert answers.shape == (4, 3) and not np.allclose(answers.sum(1), 1)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from tests.plugins.turned import accuracy_after
from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Phase, Setup, View
from tlcore.training.reversal import reversal_strength
from tlcore_adapters.cdan import Cdan, CdanObjective, entropy_weights, multilinear, random_multilinear


def softmax(z: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))
def test_the_multilinear_map_is_the_kronecker_product_of_each_image(
    n: int, d: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    f, p = rng.normal(size=(n, d)), softmax(rng.normal(size=(n, classes)))
    expected = np.stack([np.kron(p[i], f[i]) for i in range(n)])
    assert np.allclose(multilinear(torch.from_numpy(f), torch.from_numpy(p)), expected, atol=1e-12)


def test_the_random_map_keeps_inner_products_of_the_outer_product_on_average() -> None:
    rng = np.random.default_rng(0)
    f, p, width = rng.normal(size=(3, 5)), softmax(rng.normal(size=(3, 4))), 200_000
    sketch = random_multilinear(
        torch.from_numpy(f),
        torch.from_numpy(p),
        torch.from_numpy(rng.normal(size=(5, width))),
        torch.from_numpy(rng.normal(size=(4, width))),
    ).numpy()
    assert np.allclose(sketch @ sketch.T, (f @ f.T) * (p @ p.T), atol=0.05)


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 10_000))
def test_the_weights_equal_scipy_and_lie_between_one_and_two(n: int, classes: int, seed: int) -> None:
    p = softmax(np.random.default_rng(seed).normal(0, 3, size=(n, classes)))
    got = entropy_weights(torch.from_numpy(p)).numpy()
    assert np.allclose(got, 1 + np.exp(-scipy_entropy(p, axis=1)), atol=1e-12)
    assert (got >= 1).all() and (got <= 2 + 1e-12).all()


def test_a_probability_of_zero_weighs_as_its_limit() -> None:
    weights = entropy_weights(torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    assert weights.tolist() == pytest.approx([2.0, 1.5])


def setting(progress: float = 0.4, **options: object) -> tuple[Network, CdanObjective, Batch]:
    torch.manual_seed(1)
    rng = np.random.default_rng(0)
    source, target, labels = rng.normal(size=(8, 5)), rng.normal(1, 1, size=(6, 5)), np.arange(8) % 3
    network = Network(torch.nn.Linear(5, 5, bias=False), 5, 3).double()
    chosen = {"hidden": 7, "weight": 0.5, "entropy": True, "largest": 4096, "random": 11, **options}
    objective = CdanObjective(**chosen)  # type: ignore[arg-type]
    task = TrainTask(("a", "b", "c"), 5, 8, 6)
    objective.setup(Setup(network, task, lambda stream: (source, source))).double()  # type: ignore[arg-type, return-value]
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(8)),
        View(torch.from_numpy(target), None, torch.arange(6)),
        progress,
        0,
    )
    return network, objective, batch


def numpy_losses(
    network: Network, objective: CdanObjective, batch: Batch, opinions: list[np.ndarray] | None = None
) -> tuple[float, float, list[np.ndarray]]:
    """Cross-entropy, domain loss and the head's opinions; given opinions stand in for those of the network."""
    assert objective.own is not None and batch.source is not None and batch.target is not None
    state = {name: value.detach().numpy() for name, value in objective.own.state_dict().items()}
    base = network.backbone.weight.detach().numpy()
    head, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    features = [view.inputs.numpy() @ base.T for view in (batch.source, batch.target)]
    logits = [f @ head.T + bias for f in features]
    seen = [softmax(z) for z in logits]
    halves = []
    for sign, f, p in zip((-1, 1), features, opinions or seen, strict=True):
        x = np.stack([np.kron(p[i], f[i]) for i in range(len(f))])
        if "feature_map" in state:
            x = (f @ state["feature_map"]) * (p @ state["class_map"]) / np.sqrt(objective.random)
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x = x * state["discriminator.0.weight"] + state["discriminator.0.bias"]
        for layer in (1, 3):
            w, b = state[f"discriminator.{layer}.weight"], state[f"discriminator.{layer}.bias"]
            x = np.maximum(x @ w.T + b, 0)
        z = (x @ state["discriminator.5.weight"].T + state["discriminator.5.bias"]).ravel()
        weights = 1 + np.exp(-scipy_entropy(p, axis=1)) if objective.entropy else np.ones(len(p))
        halves.append(np.average(np.log1p(np.exp(sign * z)), weights=weights))
    labels = batch.source.labels
    assert labels is not None
    supervised = -np.log(seen[0][np.arange(len(labels)), labels.numpy()]).mean()
    return float(supervised), float(sum(halves) / 2), seen


@pytest.mark.parametrize("options", [{}, {"entropy": False}, {"largest": 14}], ids=["+E", "plain", "random"])
def test_the_objective_equals_numpy(options: dict[str, object]) -> None:
    network, objective, batch = setting(**options)
    losses = objective.loss(network, batch)
    supervised, domain, _ = numpy_losses(network, objective, batch)
    assert losses["source"].item() == pytest.approx(supervised, rel=1e-9)
    assert losses["domain"].item() == pytest.approx(domain, rel=1e-9)
    assert losses["total"].item() == pytest.approx(supervised + 0.5 * domain, rel=1e-9)
    assert 0 <= losses["domain_accuracy"].item() <= 1


@pytest.mark.parametrize("options", [{}, {"largest": 14}], ids=["exact", "random"])
def test_the_features_climb_the_domain_loss_while_the_head_s_opinion_is_held(
    options: dict[str, object],
) -> None:
    """Gradients = d(cross-entropy) - strength * weight * d(domain, opinions fixed), by finite differences."""
    network, objective, batch = setting(0.4, **options)
    objective.loss(network, batch)["total"].backward()
    opinions, strength, step = numpy_losses(network, objective, batch)[2], reversal_strength(0.4), 1e-6
    for values in (network.backbone.weight, network.head.weight):
        for index in [(0, 0), (2, 3), (1, 4)]:
            slopes = []
            for sign in (1, -1):
                with torch.no_grad():
                    values[index] += sign * step
                slopes.append(numpy_losses(network, objective, batch, opinions)[:2])
                with torch.no_grad():
                    values[index] -= sign * step
            supervised, domain = ((slopes[0][part] - slopes[1][part]) / (2 * step) for part in (0, 1))
            assert values.grad is not None
            expected = supervised - strength * 0.5 * domain
            assert values.grad[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_the_map_is_exact_up_to_the_bound_and_random_above_it() -> None:
    for largest, width in ((15, 15), (14, 11)):
        objective = setting(largest=largest)[1]
        assert objective.own is not None
        assert objective.own["discriminator"][0].normalized_shape == (width,)  # type: ignore[index]


def test_a_resumed_training_goes_on_with_the_same_random_maps() -> None:
    network, objective, batch = setting(largest=1)
    assert objective.own is not None
    saved = objective.own.state_dict()
    assert {"feature_map", "class_map"} <= saved.keys()
    assert not any(name.endswith("_map") for name, _ in objective.own.named_parameters())
    again = CdanObjective(7, 0.5, True, 1, 11)
    torch.manual_seed(99)
    again.setup(Setup(network, TrainTask(("a", "b", "c"), 5, 8, 6), lambda stream: None)).double()  # type: ignore[arg-type, return-value]
    assert again.own is not None
    again.own.load_state_dict(saved)
    assert again.loss(network, batch)["total"].item() == objective.loss(network, batch)["total"].item()


@pytest.mark.parametrize("classes", [1, 3])
def test_constant_features_and_single_images_give_finite_losses(classes: int) -> None:
    torch.manual_seed(0)
    network = Network(torch.nn.Identity(), 4, classes)
    objective = CdanObjective(5, 1.0, True, 4096, 8)
    own = objective.setup(Setup(network, TrainTask(("a",) * classes, 4, 1, 1), lambda stream: None))  # type: ignore[arg-type, return-value]
    one = torch.zeros(1, dtype=torch.int64)
    for value in (0.0, 7.0, 1e4):
        x = torch.full((1, 4), value)
        total = objective.loss(network, Batch(View(x, one, one), View(x, None, one), 0.5, 0))["total"]
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(v.grad).all() for v in own.parameters() if v.grad is not None)


def test_without_a_target_stream_it_says_what_it_needs() -> None:
    network, objective, batch = setting()
    with pytest.raises(PluginError, match="CDAN needs a labelled source stream and a target stream"):
        objective.loss(network, Batch(batch.source, None, 0.0, 0))


@pytest.mark.slow
def test_it_follows_classes_that_have_turned_where_source_training_does_not(tmp_path: Path) -> None:
    options = {"train": "head", "bottleneck": 16, "dropout": 0, "steps": 200, "checkpoints": 1}
    accuracy = {}
    for weight in (0.0, 1.0):
        adapter = Cdan(**options, weight=weight, batch_size=16, hidden=64)  # type: ignore[arg-type]
        accuracy[weight] = accuracy_after(adapter, tmp_path / str(weight))
    assert accuracy[0.0] < 0.92 and accuracy[1.0] > 0.95


def test_the_plan_trains_the_discriminator_beside_the_head() -> None:
    (phase,) = Cdan(steps=30, checkpoints=3).plan(TrainTask(("a", "b"), 4, 10, 10)).phases
    assert isinstance(phase, Phase)
    assert [group.parameters for group in phase.moves[0].groups] == ["backbone", "head", "objective"]

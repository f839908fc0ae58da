from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from tlcore.errors import PluginError
from tlcore.protocols import TrainTask
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Bottleneck, Phase, Setup, View
from tlcore_adapters.bsp import Bsp, BspObjective, spectral_penalty
from tlcore_adapters.dann import DannObjective


def independent_penalty(source: np.ndarray, target: np.ndarray, count: int) -> float:
    """By the eigenvalues of the Gram matrices rather than by singular values."""
    return float(sum(np.sort(linalg.eigvalsh(x.T @ x))[::-1][:count].sum() for x in (source, target)))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 8), st.integers(1, 4), st.integers(0, 10_000))
def test_the_penalty_equals_the_leading_eigenvalues_of_the_gram_matrices(
    n: int, m: int, d: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(1, 2, size=(n, d)), rng.normal(size=(m, d))
    got = spectral_penalty(torch.from_numpy(source), torch.from_numpy(target), count).item()
    assert got == pytest.approx(independent_penalty(source, target, count), rel=1e-9, abs=1e-9)
    assert got <= (source**2).sum() + (target**2).sum() + 1e-9


@given(st.integers(0, 10_000))
def test_rotations_of_the_features_and_the_order_of_images_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(9, 5)), rng.normal(size=(6, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    moved = source[rng.permutation(9)] @ turn, target[rng.permutation(6)] @ turn
    one, other = (
        spectral_penalty(torch.from_numpy(s.copy()), torch.from_numpy(t.copy()), 2).item()
        for s, t in ((source, target), moved)
    )
    assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2])
def test_the_gradient_against_finite_differences(count: int) -> None:
    rng = np.random.default_rng(0)
    source, target, change = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), 1e-6
    x = torch.from_numpy(source).requires_grad_()
    spectral_penalty(x, torch.from_numpy(target), count).backward()
    assert x.grad is not None
    for index in np.ndindex(*source.shape):
        moved = np.zeros_like(source)
        moved[index] = change
        above, below = (independent_penalty(source + sign * moved, target, count) for sign in (1, -1))
        assert x.grad[index].item() == pytest.approx((above - below) / (2 * change), abs=1e-6)


@pytest.mark.parametrize(
    "features",
    [torch.zeros(4, 3), torch.ones(4, 3), torch.eye(4), torch.ones(1, 3)],
    ids=["zero", "constant", "equal singular values", "one image"],
)
def test_batches_at_the_edge_give_finite_values_and_gradients(features: torch.Tensor) -> None:
    x = features.clone().requires_grad_()
    value = spectral_penalty(x, features, 1)
    value.backward()
    expected = 2 * np.linalg.norm(features.numpy(), 2) ** 2
    assert value.item() == pytest.approx(expected, abs=1e-5)
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_features_that_are_not_finite_are_refused_with_the_remedy() -> None:
    with pytest.raises(PluginError, match=r"not finite[\s\S]*smaller learning rate"):
        spectral_penalty(torch.full((2, 2), float("nan")), torch.zeros(2, 2), 1)


def setting(width: int = 5) -> tuple[Network, Setup, Batch, np.ndarray, np.ndarray]:
    torch.manual_seed(1)
    rng = np.random.default_rng(0)
    source, target, labels = rng.normal(size=(8, width)), rng.normal(1, 1, size=(6, width)), np.arange(8) % 3
    network = Network(torch.nn.Identity(), width, 3).double()
    task = TrainTask(("a", "b", "c"), width, 8, 6)
    batch = Batch(
        View(torch.from_numpy(source), torch.from_numpy(labels), torch.arange(8)),
        View(torch.from_numpy(target), None, torch.arange(6)),
        0.4,
        0,
    )
    return network, Setup(network, task, lambda stream: (source, source)), batch, source, target  # type: ignore[arg-type, return-value]


def test_it_is_dann_s_loss_plus_the_weighted_penalty() -> None:
    network, setup, batch, source, target = setting()
    totals, own = {}, {}
    for name, objective in (("dann", DannObjective(7, 0.5)), ("bsp", BspObjective(7, 0.5, 0.01, 2))):
        torch.manual_seed(3)
        own[name] = objective.setup(setup).double()
        totals[name] = objective.loss(network, batch)["total"].item()
    assert own["dann"].state_dict().keys() == own["bsp"].state_dict().keys()
    expected = totals["dann"] + 0.01 * independent_penalty(source, target, 2)
    assert totals["bsp"] == pytest.approx(expected, rel=1e-9)


def test_without_a_target_stream_it_says_what_it_needs() -> None:
    network, _, batch, *_ = setting()
    with pytest.raises(PluginError, match="BSP needs a labelled source stream and a target stream"):
        BspObjective(7, 1.0, 2e-4, 1).loss(network, Batch(batch.source, None, 0.0, 0))


@pytest.mark.slow
def test_the_leading_direction_loses_its_share_of_the_features() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    source = torch.from_numpy(rng.normal(size=(48, 8)) + 3 * np.eye(8)[labels]).float()
    target = torch.from_numpy(rng.normal(size=(48, 8)) + 3 * np.eye(8)[labels] + 0.5).float()
    view, every = View(source, torch.from_numpy(labels), torch.arange(48)), torch.arange(48)
    share = {}
    for spectral in (0.0, 1e-3):
        torch.manual_seed(0)
        network = Network(torch.nn.Identity(), 8, 3, Bottleneck(width=16, dropout=0.0))
        objective = BspObjective(16, 1.0, spectral, 1)
        own = objective.setup(Setup(network, TrainTask(("a", "b", "c"), 8, 48, 48), lambda stream: None))  # type: ignore[arg-type, return-value]
        optimiser = torch.optim.SGD([*network.parameters(), *own.parameters()], 0.02, momentum=0.9)
        for step in range(100):
            optimiser.zero_grad()
            batch = Batch(view, View(target, None, every), step / 100, step)
            objective.loss(network, batch)["total"].backward()
            optimiser.step()
        values = np.linalg.svd(network.eval().features(target).detach().numpy(), compute_uv=False) ** 2
        share[spectral] = values[0] / values.sum()
        assert (network(target).argmax(1).numpy() == labels).mean() > 0.9
    assert share[1e-3] < share[0.0] - 0.02


def test_the_plan_trains_the_discriminator_beside_the_head() -> None:
    (phase,) = Bsp(steps=30, checkpoints=3).plan(TrainTask(("a", "b"), 4, 10, 10)).phases
    assert isinstance(phase, Phase)
    assert [group.parameters for group in phase.moves[0].groups] == ["backbone", "head", "objective"]
    assert "DANN" in Bsp.card.summary

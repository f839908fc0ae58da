from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from tests.plugins.tuned import job, setting, small_network
from tlcore.errors import PluginError, UserError
from tlcore.training.loop import run_plan
from tlcore.training.objectives import supervised_loss
from tlcore.training.plan import Phase
from tlcore_tuners.co_tuning import (
    CoTuning,
    CoTuningObjective,
    cotuning_loss,
    direct_relationship,
    reverse_relationship,
)


def source_probabilities(n: int, z: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 1, (n, z))
    if labels is not None:
        logits[np.arange(n), labels] += 4
    return softmax(logits, axis=1)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10_000))
def test_the_direct_relationship_is_the_mean_of_each_class_s_images(
    n: int, z: int, k: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, k, n)
    p = source_probabilities(n, z, seed)
    related = direct_relationship(p, labels, k)
    assert related.shape == (k, z)
    np.testing.assert_allclose(related.sum(1), 1)
    for t in range(k):
        mine = [row for row, label in zip(p, labels, strict=True) if label == t] or list(p)
        np.testing.assert_allclose(related[t], np.mean(mine, axis=0), atol=1e-12)


def test_the_reverse_relationship_is_bayes_rule_on_a_regression_from_source_classes() -> None:
    labels = np.arange(60) % 3
    p = source_probabilities(60, 5, 0, labels)
    related = reverse_relationship(p, labels, 3, seed=0)
    np.testing.assert_allclose(related.sum(1), 1)
    # An independent regression with a penalty near to what cross-validation chooses agrees about what belongs together.
    model = LogisticRegression(C=100, max_iter=1000).fit(p / p.std(), labels)
    joint = model.predict_proba(np.eye(5) / p.std()).T * p.mean(0)
    by_hand = joint / joint.sum(1, keepdims=True)
    assert np.array_equal(related.argmax(1), [0, 1, 2]) and np.array_equal(by_hand.argmax(1), [0, 1, 2])
    assert np.abs(related - by_hand).max() < 0.15


@pytest.mark.parametrize("n", [3, 30])
def test_a_class_without_images_is_related_like_all_images_together(n: int) -> None:
    labels = np.arange(n) % 2
    p = source_probabilities(n, 4, 1, labels)
    related = reverse_relationship(p, labels, 4, seed=0)
    np.testing.assert_allclose(related[2], p.mean(0) / p.mean(0).sum())
    assert np.isfinite(related).all()


def test_source_classes_that_nothing_looks_like_stay_unlikely() -> None:
    labels = np.arange(40) % 2
    p = np.hstack([source_probabilities(40, 2, 0, labels) * (1 - 1e-6), np.full((40, 2), 5e-7)])
    assert reverse_relationship(p, labels, 2, seed=0)[:, 2:].max() < 1e-3


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="at least two classes"):
        reverse_relationship(source_probabilities(5, 3, 0), np.zeros(5, np.int64), 2, seed=0)


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 10_000))
def test_the_loss_is_the_cross_entropy_of_soft_labels(n: int, z: int, seed: int) -> None:
    logits, related = np.random.default_rng(seed).normal(0, 3, (n, z)), source_probabilities(n, z, seed)
    got = cotuning_loss(torch.from_numpy(logits), torch.from_numpy(related)).item()
    assert got == pytest.approx(-(related * log_softmax(logits, axis=1)).sum(1).mean(), rel=1e-5, abs=1e-6)


def head_of(width: int, classes: int) -> torch.nn.Linear:
    torch.manual_seed(5)
    return torch.nn.Linear(width, classes)


def test_the_source_head_trains_on_related_classes_and_the_original_stays() -> None:
    rng = np.random.default_rng(0)
    x, y, head = rng.normal(size=(9, 4)), np.arange(9) % 3, head_of(6, 5)
    network, setup, batch = setting(x, y, source_head=head)
    objective = CoTuningObjective(0.0, False, 2.0, "direct")
    own = objective.setup(setup)
    features = network.embed(batch.source.inputs).detach().numpy().astype(np.float64)
    logits = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    related = np.stack([softmax(logits, axis=1)[y == t].mean(0) for t in range(3)])[y]
    supervised = supervised_loss(network(batch.source.inputs), batch.source).item()
    expected = supervised - 2 * (related * log_softmax(logits, axis=1)).sum(1).mean()
    loss = objective.loss(network, batch)["total"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert own.head.weight.grad is not None and head.weight.grad is None
    assert {"related", "head.weight", "head.bias"} == own.state_dict().keys()


def test_mixed_images_have_mixed_relations() -> None:
    x, y = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 0, 1, 1, 2, 2])
    network, setup, batch = setting(x, y, source_head=head_of(6, 5))
    objective = CoTuningObjective(0.0, False, 1.0, "direct")
    objective.setup(setup)
    other = batch.source.labels.flip(0)
    parts = [
        objective.loss(network, replace(batch, source=replace(batch.source, labels=labels)))["source"].item()
        for labels in (batch.source.labels, other)
    ]
    mixed = objective.loss(network, replace(batch, source=replace(batch.source, share=0.8, others=other)))
    assert mixed["source"].item() == pytest.approx(0.8 * parts[0] + 0.2 * parts[1], rel=1e-5)


def test_without_a_source_head_it_says_what_to_choose() -> None:
    _, setup, _ = setting(np.ones((4, 4)), np.arange(4) % 3)
    with pytest.raises(PluginError, match=r"layer that pretraining classified with[\s\S]*lp-ft"):
        CoTuningObjective(0.0, False, 1.0, "direct").setup(setup)


def test_a_head_of_another_width_is_refused() -> None:
    _, setup, _ = setting(np.ones((4, 4)), np.arange(4) % 3, source_head=head_of(9, 5))
    with pytest.raises(PluginError, match="takes 9 features and the network gives 6"):
        CoTuningObjective(0.0, False, 1.0, "direct").setup(setup)


def test_the_plan_trains_the_source_head_at_the_backbone_s_rate() -> None:
    tune = job(CoTuning(lr=2e-4), Path()).plan.phases[1]
    assert isinstance(tune, Phase)
    rates = {group.parameters: group.lr for group in tune.moves[0].groups}
    assert rates == {"head": 2e-4, "backbone": 2e-4, "objective": 2e-4}


@pytest.mark.parametrize("relationship", ["reverse", "direct"])
def test_training_goes_through_and_the_source_head_is_dropped(relationship: str, tmp_path: Path) -> None:
    work = job(CoTuning(epochs=1, relationship=relationship, mixup=0.2), tmp_path, source_head=head_of(96, 7))  # type: ignore[arg-type]
    result = run_plan(work)
    assert {"total", "fit", "source"} <= result.history[-1].losses.keys()
    assert set(work.network.state_dict()) == set(small_network().state_dict())


def test_copies_of_an_image_do_not_make_chance_look_like_a_relationship() -> None:
    """Labels that say nothing of the source classes: each image three times is no evidence that they do."""
    once, labels = source_probabilities(40, 30, 3), np.arange(40) % 2
    p, repeated, groups = np.repeat(once, 3, axis=0), np.repeat(labels, 3), np.repeat(np.arange(40), 3)
    told, untold = (reverse_relationship(p, repeated, 2, 0, known) for known in (groups, None))
    apart = [np.abs(related[0] - related[1]).sum() for related in (told, untold)]
    assert apart[0] < 0.1 < 0.5 < apart[1]

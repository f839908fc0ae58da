from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from tests.plugins.tuned import bright_images, job, setting
from tlcore.errors import PluginError
from tlcore.training.loop import run_plan
from tlcore.training.objectives import supervised_loss
from tlcore.training.streams import StreamData
from tlcore_tuners.distill import Distill, DistillObjective, distillation_loss


def independent(logits: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    p, q = softmax(teacher / temperature, axis=1), softmax(logits / temperature, axis=1)
    return float(temperature**2 * rel_entr(p, q).sum(1).mean())


@given(st.integers(1, 9), st.integers(1, 6), st.floats(1, 20), st.integers(0, 10_000))
def test_the_loss_is_the_scaled_divergence_from_the_teacher(
    n: int, k: int, temperature: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, teacher = rng.normal(0, 5, (n, k)), rng.normal(0, 5, (n, k))
    got = distillation_loss(torch.from_numpy(logits), torch.from_numpy(teacher), temperature).item()
    assert got == pytest.approx(independent(logits, teacher, temperature), rel=1e-7, abs=1e-9)
    assert got >= -1e-9


def test_a_student_that_agrees_up_to_a_constant_has_no_loss_and_no_gradient() -> None:
    teacher = torch.randn(4, 3, dtype=torch.float64)
    logits = (teacher + 7).requires_grad_()
    loss = distillation_loss(logits, teacher, 4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-9


def test_at_a_high_temperature_the_gradient_is_that_of_matching_centred_logits() -> None:
    """Hinton, Vinyals & Dean 2015, section 2.1: dC/dz -> (z - v) / K for zero-mean logits, per image."""
    rng = np.random.default_rng(0)
    z, v = (x - x.mean(1, keepdims=True) for x in rng.normal(size=(2, 5, 4)))
    logits = torch.from_numpy(z).requires_grad_()
    distillation_loss(logits, torch.from_numpy(v), 1e4).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), (z - v) / 4 / 5, atol=1e-5)


def test_extreme_teachers_stay_finite() -> None:
    teacher = torch.tensor([[1e4, -1e4], [0.0, 0.0]])
    logits = torch.zeros(2, 2, requires_grad=True)
    loss = distillation_loss(logits, teacher, 1.0)
    loss.backward()
    assert (
        loss.item() == pytest.approx(np.log(2) / 2)
        and logits.grad is not None
        and torch.isfinite(logits.grad).all()
    )


def objective_on(weight: float) -> tuple:
    rng = np.random.default_rng(0)
    x, y, teacher = rng.normal(size=(7, 4)), np.arange(7) % 3, rng.normal(size=(7, 3)).astype(np.float32)
    network, setup, batch = setting(x, y, teacher=teacher)
    objective = DistillObjective(0.0, False, weight, 3.0)
    own = objective.setup(setup)
    return network, batch, objective, own, teacher


def test_labels_and_teacher_are_weighed() -> None:
    network, batch, objective, own, teacher = objective_on(0.25)
    logits = network(batch.source.inputs)
    expected = 0.75 * supervised_loss(logits, batch.source).item() + 0.25 * independent(
        logits.detach().numpy(), teacher, 3.0
    )
    assert objective.loss(network, batch)["total"].item() == pytest.approx(expected, rel=1e-5)
    assert not own.state_dict()  # the host knows the teacher after a kill as well


def test_teachers_are_found_by_index() -> None:
    network, batch, objective, _, teacher = objective_on(1.0)
    order = torch.tensor([4, 1, 6])
    view = replace(
        batch.source, inputs=batch.source.inputs[order], labels=batch.source.labels[order], index=order
    )
    got = objective.loss(network, replace(batch, source=view))["total"].item()
    logits = network(view.inputs).detach().numpy()
    assert got == pytest.approx(independent(logits, teacher[order.numpy()], 3.0), rel=1e-5)


def test_mixed_images_have_mixed_teachers() -> None:
    network, batch, objective, _, teacher = objective_on(1.0)
    source = batch.source
    view = replace(source, share=0.7, others=source.labels.flip(0), others_index=source.index.flip(0))
    logits = network(view.inputs).detach().numpy()
    expected = 0.7 * independent(logits, teacher, 3.0) + 0.3 * independent(logits, teacher[::-1], 3.0)
    got = objective.loss(network, replace(batch, source=view))["total"].item()
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (None, "needs a teacher"),
        (np.zeros((7, 2), np.float32), r"\[7, 2\]"),
        (np.full((7, 3), np.nan, np.float32), "not finite"),
    ],
    ids=["none", "of other classes", "not finite"],
)
def test_a_teacher_that_cannot_teach_is_refused(teacher: np.ndarray | None, message: str) -> None:
    _, setup, _ = setting(np.ones((7, 4)), np.arange(7) % 3, teacher=teacher)
    with pytest.raises(PluginError, match=message):
        DistillObjective(0.0, False, 0.5, 4.0).setup(setup)


@pytest.mark.slow
def test_a_student_follows_a_teacher_against_wrong_labels(tmp_path: Path) -> None:
    pixels, labels = bright_images(24, 1)
    teacher = (8 * np.eye(3)[labels]).astype(np.float32)
    tuner = Distill(weight=1.0, epochs=8, lr=3e-3, augment="none", temperature=2.0)
    work = job(tuner, tmp_path, teacher=teacher)
    wrong = StreamData(pixels, np.arange(24), (labels + 1) % 3)
    result = run_plan(replace(work, streams={"source": wrong}))
    assert result.history[0].measures["validation_accuracy"] < 0.3  # the probe has learned the wrong ones
    assert result.measures["validation_accuracy"] > 0.9

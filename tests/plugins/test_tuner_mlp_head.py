from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tlcore.protocols import TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Phase
from tlcore.training.predict import predict_features
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess
from tlcore_tuners.mlp_head import MlpHead

CLASSES = ("inside", "absent", "outside")


def rings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of two classes that no straight line parts: by their distance from the origin."""
    rng = np.random.default_rng(seed)
    labels = 2 * (np.arange(count) % 2)
    angle = rng.uniform(0, 2 * np.pi, count)
    radius = np.where(labels == 0, 1.0, 3.0) + rng.normal(0, 0.1, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32), labels


def test_the_plan_is_the_classic_small_classifier_on_cached_features() -> None:
    plan = MlpHead().plan(TrainTask(CLASSES, 2, 40))
    (phase,) = plan.phases
    assert isinstance(phase, Phase) and phase.inputs == "features" and phase.patience == 10
    assert plan.bottleneck is not None and plan.keeps_backbone
    assert (plan.bottleneck.width, plan.bottleneck.dropout, plan.bottleneck.norm) == (256, 0.5, False)


def test_it_learns_what_no_linear_head_can_and_never_names_an_absent_class(tmp_path: object) -> None:
    torch.set_num_threads(1)
    features, labels = rings(60, 1)
    held_out, truth = rings(40, 2)

    def measure(network: Network) -> Measured:
        chances = predict_features(network, held_out)[1]
        right = float((chances.argmax(1) == truth).mean())
        loss = float(-np.log(chances[np.arange(40), truth] + 1e-12).mean())
        return Measured((right, -loss), {"validation_accuracy": right})

    task = TrainTask(CLASSES, 2, 60, counts=(30, 0, 30))
    blank = np.zeros((60, 8, 8, 3), np.uint8)
    torch.manual_seed(0)
    network = Network(nn.Flatten(), 2, 3)
    job = TrainJob(
        network=network, preprocess=Preprocess(height=8, width=8), task=task,
        plan=MlpHead(units=64, epochs=25, lr=0.01).plan(task), streams={"source": StreamData(blank, np.arange(60), labels)},
        measure=measure, scratch=tmp_path, features={"source": features},
    )  # type: ignore[arg-type]  # fmt: skip
    result = run_plan(job)
    assert result.measures["validation_accuracy"] > 0.95
    far = 100 * np.random.default_rng(3).normal(size=(200, 2)).astype(np.float32)
    assert 1 not in predict_features(network, np.concatenate([held_out, far]))[1].argmax(1)

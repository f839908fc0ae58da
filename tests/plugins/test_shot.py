from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.special import log_softmax, softmax
from sklearn.cluster import KMeans

from tlcore.errors import PluginError
from tlcore.protocols import LabelSets, TrainTask
from tlcore.training.job import Measured, TrainJob
from tlcore.training.loop import run_plan
from tlcore.training.network import Network
from tlcore.training.plan import Batch, Bottleneck, Phase, Setup, View
from tlcore.training.predict import predict_features
from tlcore.training.streams import StreamData
from tlcore.values import Preprocess
from tlcore_adapters.shot import (
    UNKNOWN,
    Shot,
    ShotObjective,
    centroid_labels,
    information_loss,
    uncertain,
)

TASK = TrainTask(("a", "b"), 6, 60, 60)


def loop_labels(features: np.ndarray, probabilities: np.ndarray, least: int) -> list[int]:
    """The authors' procedure image by image, with SciPy's cosine distance."""
    rows = [np.append(row, 1.0) / np.linalg.norm(np.append(row, 1.0)) for row in features]
    shares, labels = [list(p) for p in probabilities], [int(p.argmax()) for p in probabilities]
    for _ in range(2):
        centroids = {}
        for k in range(probabilities.shape[1]):
            if labels.count(k) >= least:
                mass = sum(p[k] for p in shares)
                centroids[k] = sum(p[k] * row for p, row in zip(shares, rows, strict=True)) / mass
        labels = [min(centroids, key=lambda k: cosine(row, centroids[k])) for row in rows]
        shares = [[float(k == label) for k in range(probabilities.shape[1])] for label in labels]
    return labels


@given(st.integers(1, 25), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_centroid_labels_equal_a_loop_over_images(m: int, k: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, probabilities = rng.normal(0, 3, (m, d)), rng.dirichlet(np.ones(k), m)
    assert centroid_labels(features, probabilities).tolist() == loop_labels(features, probabilities, 1)


def test_a_class_with_too_few_predicted_images_has_no_centroid() -> None:
    rng = np.random.default_rng(0)
    classes = np.array([0] * 12 + [1] * 12 + [2] * 2)
    features = rng.normal(0, 0.3, (26, 3)) + 4 * np.eye(3)[classes]
    probabilities = 0.9 * np.eye(3)[classes] + 0.1 / 3
    assert set(centroid_labels(features, probabilities, 3)) == {0, 1}
    assert centroid_labels(features, probabilities, 3).tolist() == loop_labels(features, probabilities, 3)
    assert centroid_labels(features, probabilities, 1).tolist() == classes.tolist()


def test_a_class_that_nobody_is_predicted_as_is_never_given() -> None:
    """The fault that the authors mended: a mean over no image is a centroid of nothing."""
    features = np.random.default_rng(0).normal(size=(20, 4))
    probabilities = np.tile([0.6, 0.4, 0.0], (20, 1))
    assert set(centroid_labels(features, probabilities)) == {0}


def test_where_no_class_has_enough_images_the_most_frequent_ones_serve() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    assert centroid_labels(np.eye(3), probabilities, 11).tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_constant_features_give_labels_all_the_same(value: float) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 8)
    assert len(set(centroid_labels(np.full((8, 2), value, dtype=np.float32), probabilities))) == 1


@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 10_000))
def test_no_cut_of_the_entropies_is_better_than_that_of_uncertain(m: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.5), m)
    entropy = -(p * np.log(p + 1e-300)).sum(1)
    assume(np.ptp(entropy) > 1e-5)
    upper = uncertain(p)
    assert entropy[upper].min() > entropy[~upper].max()

    def within(mask: np.ndarray) -> float:
        return float(sum(((part - part.mean()) ** 2).sum() for part in (entropy[mask], entropy[~mask])))

    ordered = np.sort(entropy)
    cuts = [entropy > cut for cut in ordered[:-1] if (entropy > cut).any()]
    assert within(upper) <= min(within(cut) for cut in cuts) + 1e-9


def test_uncertain_images_are_those_of_scikit_learns_upper_cluster() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.dirichlet(np.full(5, 0.05), 30), rng.dirichlet(np.full(5, 30.0), 20)])
    entropy = -(p * np.log(p + 1e-300)).sum(1)
    fit = KMeans(2, n_init=10, random_state=0).fit(entropy[:, None])
    expected = fit.labels_ == fit.cluster_centers_[:, 0].argmax()
    np.testing.assert_array_equal(uncertain(p), expected)


@pytest.mark.parametrize("p", [np.full((6, 4), 0.25), np.ones((3, 1)), np.eye(3), np.array([[0.2, 0.8]])])
def test_nobody_is_uncertain_where_all_are_alike(p: np.ndarray) -> None:
    assert not uncertain(p).any()


@given(st.integers(1, 20), st.integers(1, 6), st.booleans(), st.integers(0, 10_000))
def test_information_loss_equals_numpy(n: int, k: int, diversity: bool, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, (n, k))
    p = softmax(logits, axis=1)
    expected = -(p * log_softmax(logits, axis=1)).sum(1).mean()
    if diversity:
        mean = p.mean(0)
        expected += (mean * np.log(mean + 1e-5)).sum()
    got = information_loss(torch.from_numpy(logits), diversity).item()
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_certain_logits_of_any_size_have_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [1e4, 0.0, 0.0]], requires_grad=True)
    loss = information_loss(logits, True)
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


def stepped(
    objective: ShotObjective, features: np.ndarray, index: list[int]
) -> tuple[dict[str, float], np.ndarray]:
    """Losses of one batch of target features, and the labels of all, with an identity head."""
    k = features.shape[1]
    network = Network(torch.nn.Identity(), k, k).double()
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(k))
        network.head.bias.zero_()
    task = TrainTask(tuple("abcdef"[:k]), k, 4, len(features))
    setup = Setup(network, task, lambda _: (features.astype(np.float32), softmax(features, axis=1)))
    bank = objective.setup(setup)
    objective.epoch_started(setup)
    view = View(torch.from_numpy(features[index]), None, torch.tensor(index))
    losses = objective.loss(network, Batch(None, view, 0.0, 0))
    return {name: value.item() for name, value in losses.items()}, bank.get_buffer("labels").numpy()


def test_the_objective_is_weighted_information_plus_cross_entropy_with_the_labels_of_the_batch() -> None:
    features = np.random.default_rng(0).normal(0, 2, (12, 3))
    index = [3, 1, 8, 5]
    losses, labels = stepped(ShotObjective(0.3, 2.0, True, 1, False), features, index)
    expected = loop_labels(features.astype(np.float32), softmax(features, axis=1), 1)
    assert labels.tolist() == expected and labels.dtype == np.int64
    batch = features[index]
    p = softmax(batch, axis=1)
    information = -(p * np.log(p)).sum(1).mean() + (p.mean(0) * np.log(p.mean(0) + 1e-5)).sum()
    pseudo = -log_softmax(batch, axis=1)[np.arange(4), labels[index]].mean()
    assert losses["total"] == pytest.approx(2 * information + 0.3 * pseudo, rel=1e-9)
    assert losses["known"] == 1


def test_uncertain_images_are_left_out_of_both_terms_in_an_open_set() -> None:
    rng = np.random.default_rng(0)
    known = 8 * np.eye(3)[np.arange(9) % 3] + rng.normal(0, 0.1, (9, 3))
    features = np.concatenate([known, rng.normal(0, 0.1, (4, 3))])
    losses, labels = stepped(ShotObjective(0.3, 1.0, True, 1, True), features, [0, 1, 2, 9, 12])
    assert (labels[9:] == UNKNOWN).all() and (labels[:9] == np.arange(9) % 3).all()
    p = softmax(features[:3], axis=1)
    information = -(p * np.log(p)).sum(1).mean() + (p.mean(0) * np.log(p.mean(0) + 1e-5)).sum()
    assert losses["information"] == pytest.approx(information, rel=1e-9)
    assert losses["known"] == pytest.approx(0.6)


def test_a_batch_of_unknown_images_alone_costs_nothing() -> None:
    features = np.concatenate([8 * np.eye(3), np.random.default_rng(0).normal(0, 0.1, (3, 3))])
    losses, _ = stepped(ShotObjective(0.3, 1.0, True, 1, True), features, [3, 4, 5])
    assert losses == {"total": 0, "known": 0}


def test_a_batch_of_one_image_is_named_as_too_small() -> None:
    with pytest.raises(PluginError, match="at least two images"):
        stepped(ShotObjective(0.3, 1.0, True, 1, False), np.eye(3), [1])


def test_features_that_are_not_finite_are_named() -> None:
    with pytest.raises(PluginError, match="not finite"):
        stepped(ShotObjective(0.3, 1.0, True, 1, False), np.full((4, 3), np.nan), [0, 1])


@pytest.mark.parametrize(
    ("label_sets", "diversity", "least", "open_set"),
    [
        ("closed", True, 1, False), ("partial", False, 11, False), ("open", True, 1, True),
        ("open-partial", False, 11, True),
    ],
)  # fmt: skip
def test_what_is_known_of_the_classes_decides_about_diversity_centroids_and_unknown_images(
    label_sets: LabelSets, diversity: bool, least: int, open_set: bool
) -> None:
    objective = Shot().objective(TrainTask(("a", "b"), 6, 60, 60, label_sets=label_sets))
    assert (objective.diversity, objective.least, objective.open_set) == (diversity, least, open_set)


def test_few_target_images_do_not_lose_their_centroids_in_a_partial_set() -> None:
    objective = Shot().objective(TrainTask(tuple("abcde"), 6, 60, 30, label_sets="partial"))
    assert objective.least == 3
    assert Shot(class_images=7).objective(TASK).least == 7


def moved(phase: Phase) -> list[str]:
    return [group.parameters for group in phase.moves[0].groups]


def test_on_cached_features_a_source_phase_makes_what_the_target_phase_then_moves() -> None:
    plan = Shot(train="head").plan(TASK)
    source, shot = (part for part in plan.phases if isinstance(part, Phase))
    assert plan.bottleneck == Bottleneck(width=256, dropout=0)
    assert (source.streams, source.choose, moved(source)) == (("source",), "end", ["bottleneck", "head"])
    assert (shot.streams, shot.choose, moved(shot)) == (("target",), "best", ["bottleneck"])
    assert source.inputs == shot.inputs == "features"


def test_without_a_bottleneck_the_source_only_network_is_moved_by_the_target_alone() -> None:
    for train, group in (("all", "backbone"), ("last", "last:1")):
        plan = Shot(train=train).plan(TASK)
        (phase,) = plan.phases
        assert isinstance(phase, Phase) and plan.bottleneck is None
        assert (phase.streams, moved(phase)) == (("target",), [group])


def test_with_a_bottleneck_the_whole_network_learns_the_source_first() -> None:
    source, shot = (
        part for part in Shot(train="all", bottleneck=8).plan(TASK).phases if isinstance(part, Phase)
    )
    assert moved(source) == ["backbone", "bottleneck", "head"] and moved(shot) == ["backbone", "bottleneck"]


class Killed(Exception):
    pass


def job_of(
    folder: Path,
    options: dict[str, Any],
    progress: Callable[[int, int, str], None],
    save_seconds: float = 0.0,
) -> TrainJob:
    """One feature tells two classes apart best and has moved on the target; another, weaker one has not."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.int64) % 2
    centre = np.outer(np.where(labels == 0, -1.0, 1.0), [2, 1.5, 0, 0, 0, 0])
    source = (centre + rng.normal(0, 0.5, (60, 6))).astype(np.float32)
    target = (centre + rng.normal(0, 0.5, (60, 6)) + np.array([4, 0, 2, 0, 0, 0])).astype(np.float32)
    torch.manual_seed(0)
    return TrainJob(
        network=Network(torch.nn.Identity(), 6, 2),
        preprocess=Preprocess(height=8, width=8),
        task=TASK,
        plan=Shot(train="head", bottleneck=16, **options).plan(TASK),
        streams={
            "source": StreamData(np.zeros((60, 8, 8, 3), dtype=np.uint8), np.arange(60), labels),
            "target": StreamData(np.zeros((60, 8, 8, 3), dtype=np.uint8), np.arange(60), None),
        },
        measure=lambda _: Measured((0.0,), {}),
        scratch=folder,
        start_counts=False,
        features={"source": source, "target": target},
        save_seconds=save_seconds,
        progress=progress,
    )


def silent(done: int, total: int, text: str) -> None:
    return None


def test_adaptation_finds_the_classes_of_a_shifted_target_with_the_head_frozen(tmp_path: Path) -> None:
    labels = np.arange(60) % 2
    heads: list[torch.Tensor] = []
    accuracies: list[float] = []

    def look(done: int, total: int, text: str) -> None:
        if done == total:
            heads.append(job.network.head.weight.detach().clone())
            p = predict_features(job.network, job.features["target"])[1]
            accuracies.append(float((p.argmax(1) == labels).mean()))

    job = job_of(tmp_path, {"steps": 60, "checkpoints": 1}, look, save_seconds=1e9)
    run_plan(job)
    assert torch.equal(heads[0], heads[1])
    assert accuracies[1] > accuracies[0] + 0.2


def test_a_killed_adaptation_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    """Killed in the middle of an epoch of the second phase: its pseudo-labels must have been kept."""
    options = {"steps": 6, "checkpoints": 2, "batch_size": 16}
    whole = job_of(tmp_path / "whole", options, silent)
    run_plan(whole)

    def kill(done: int, total: int, text: str) -> None:
        if text.startswith("shot") and done == 5:
            raise Killed

    with pytest.raises(Killed):
        run_plan(job_of(tmp_path / "broken", options, kill))
    again = job_of(tmp_path / "broken", options, silent)
    run_plan(again)
    wanted = whole.network.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.network.state_dict().items())

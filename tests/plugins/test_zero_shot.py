from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from tests.plugins.clip_problems import CLASSES, logits_of, problem_of
from tests.plugins.tiny_clip import save_tiny_clip
from tlcore.protocols import TrainTask
from tlcore.training.network import make_network
from tlcore.training.plan import HeadFit, HeadProblem, Solved
from tlcore_models.open_clip import OpenClip
from tlcore_tuners.zero_shot import ZeroShot


def solve(tuner: ZeroShot, problem: HeadProblem) -> Solved:
    task = TrainTask(problem.classes, problem.features.shape[1], len(problem.labels))
    (phase,) = tuner.plan(task).phases
    assert isinstance(phase, HeadFit)
    solved = phase.fit(problem)
    assert isinstance(solved, Solved)
    return solved


DESCRIBED = {"dog": ("a dog that barks", "it has four legs")}


@pytest.mark.parametrize("descriptions", [{}, DESCRIBED], ids=["templates", "descriptions"])
def test_logits_are_open_clips_on_the_way_from_a_folder_to_the_network(
    tmp_path: Path, descriptions: dict[str, tuple[str, ...]]
) -> None:
    torch.set_num_threads(1)
    folder = save_tiny_clip(tmp_path / "tiny")
    source = OpenClip(spec=str(folder))
    (candidate,) = source.candidates()
    tuner = ZeroShot(descriptions=descriptions)
    assert candidate.preprocess is not None
    network = make_network(source.build(candidate, classes=0), 3, preprocess=candidate.preprocess).eval()
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        features = network.features(images).numpy()
    labels = np.zeros(5, dtype=np.int64)
    problem = HeadProblem(features, labels, CLASSES, 0, text=partial(source.text_embeddings, candidate))
    network.set_head(solve(tuner, problem))

    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    weights = []
    with torch.no_grad():
        for name in CLASSES:
            texts = list(descriptions.get(name, [t.replace("{}", name) for t in tuner.templates]))
            own = theirs.encode_text(open_clip.tokenize(texts), normalize=True).mean(0)
            weights.append(own / own.norm())
        wanted = 100 * theirs.encode_image(images, normalize=True) @ torch.stack(weights).T
        found = network(images)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.softmax(1), wanted.softmax(1), atol=1e-4, rtol=0)


def test_the_head_is_open_clips_zero_shot_classifier(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "tiny")
    source = OpenClip(spec=str(folder))
    (candidate,) = source.candidates()
    problem = HeadProblem(
        np.ones((1, 16), np.float32), np.zeros(1, np.int64), CLASSES, 0,
        text=partial(source.text_embeddings, candidate),
    )  # fmt: skip
    solved = solve(ZeroShot(scale=50), problem)
    theirs = open_clip.build_zero_shot_classifier(
        open_clip.create_model(f"local-dir:{folder}").eval(), open_clip.get_tokenizer(f"local-dir:{folder}"),
        CLASSES, [lambda name, t=t: t.replace("{}", name) for t in ZeroShot().templates],
    )  # fmt: skip
    np.testing.assert_allclose(solved.tensors["weight"], 50 * theirs.numpy().T, atol=1e-4)


def test_no_label_is_read() -> None:
    problem = problem_of([0, 0, 1, 2])
    first = solve(ZeroShot(), problem)
    for labels in (np.zeros(4, np.int64), np.array([-1, 7, 7, 7]), np.zeros(0, np.int64)):
        again = solve(ZeroShot(), dataclasses.replace(problem, labels=labels))
        np.testing.assert_array_equal(first.tensors["weight"], again.tensors["weight"])


def test_the_length_of_a_feature_plays_no_part() -> None:
    problem = problem_of([0, 1, 2, 2])
    solved = solve(ZeroShot(), problem)
    np.testing.assert_allclose(
        logits_of(solved, problem.features), logits_of(solved, 1e3 * problem.features), atol=1e-9
    )


def test_classes_whose_texts_fit_are_recognised() -> None:
    held = problem_of([0, 1, 2] * 20, seed=9)
    solved = solve(ZeroShot(), problem_of([0, 1, 2]))
    assert (logits_of(solved, held.features).argmax(1) == held.labels).mean() > 0.95


def test_one_class_alone_has_a_head() -> None:
    problem = problem_of([0], classes=("cat",))
    assert np.asarray(solve(ZeroShot(), problem).tensors["weight"]).shape == (1, 6)

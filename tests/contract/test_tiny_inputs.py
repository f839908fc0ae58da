from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from tlcore.testing import tiny_evidence, tiny_images, tiny_outputs, tiny_task


def test_tiny_images_are_equal_for_equal_arguments_and_no_two_files_are_alike(tmp_path: Path) -> None:
    one, other = (tiny_images(tmp_path / name, ("a", "b"), 3, side=24) for name in ("one", "other"))
    files = sorted(path.relative_to(one) for path in one.rglob("*.png"))
    assert [str(file) for file in files] == [f"{c}/{c}-00{i}.png" for c in "ab" for i in range(3)]
    contents = [(one / file).read_bytes() for file in files]
    assert contents == [(other / file).read_bytes() for file in files]
    assert len(set(contents)) == 6
    assert Image.open(one / files[0]).size == (24, 24)


def test_the_classes_of_tiny_images_can_be_told_apart(tmp_path: Path) -> None:
    files = sorted(tiny_images(tmp_path, ("a", "b", "c", "d"), 6).rglob("*.png"))
    pixels = [np.asarray(Image.open(file), dtype=np.float64).ravel() for file in files]
    labels = [file.parent.name for file in files]
    assert cross_val_score(KNeighborsClassifier(1), pixels, labels, cv=3).mean() == 1.0


def test_tiny_evidence_knows_its_labels_as_far_as_it_is_told_to() -> None:
    def accuracy(skill: float) -> float:
        evidence = tiny_evidence(120, skill=skill)
        model = LinearDiscriminantAnalysis()
        return float(cross_val_score(model, evidence.features(), evidence.labels, cv=3).mean())

    assert accuracy(2.0) > 0.9 and accuracy(0.0) < 0.5
    evidence = tiny_evidence(images=30, classes=5, dim=4)
    probabilities = evidence.source_probabilities()
    assert probabilities is not None and probabilities.shape == (30, 6)
    assert (evidence.moments.n, evidence.moments.dim, evidence.moments.classes) == (30, 4, 5)
    assert np.allclose(evidence.moments.mean, evidence.features().mean(axis=0), atol=1e-6)


def test_tiny_outputs_and_tasks_have_the_shapes_of_the_contract() -> None:
    outputs = tiny_outputs(20, 4, 6)
    assert outputs.target_probabilities.shape == outputs.source_probabilities.shape == (20, 4)
    assert np.allclose(outputs.target_probabilities.sum(axis=1), 1)
    assert outputs.target_features.shape == (20, 6) and outputs.target_features.dtype == np.float32
    assert (tiny_task().target_train, tiny_task(target=True).target_train) == (0, 20)

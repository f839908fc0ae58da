"""Remarks of scorers among the notes of a candidate, through the score stage."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tlcore.errors import UserError
from tlcore.features.files import load_features
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.asking import remarks
from tlcore.selection.redraws import whole
from tlcore.testing import tiny_evidence
from tlcore.values import Ranked

from .conftest import Chain, source, write_images, write_zoo


@pytest.mark.parametrize(
    ("known", "remark"),
    [
        ("nothing", "logme: no linear signal for 3 of 3 classes"),
        ("classes", "logme: the features fit 3 of 3 classes without error"),
    ],
)
def test_what_logme_remarks_is_among_the_notes_of_the_candidate(
    chain: Chain, tmp_path: Path, known: str, remark: str
) -> None:
    data = chain.data(write_images(tmp_path / "photos", 12, seed=0))
    candidate = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))[0]
    document = candidate.model_dump(mode="json")
    features = chain(
        "features", inputs={"data": data, "pixels": chain.pixels(data, candidate)},
        options={"candidate": document, "max_images": 100}, strategies={"source": source(candidate)},
    )  # fmt: skip
    stored = load_features(chain.store.folder(features))
    animals = [name.partition("/")[0] for name in stored.sample_ids]
    codes = np.unique(animals, return_inverse=True)[1]
    # Features that nobody could mistake: the number of the image within its class, or the class itself.
    within = np.array([animals[:row].count(animal) for row, animal in enumerate(animals)])
    row = np.random.default_rng(0).normal(size=(40, stored.features.shape[1]))
    rows = row[within] if known == "nothing" else row[codes]
    file = chain.store.folder(features) / "features.npy"
    file.chmod(0o644)
    np.save(file, rows.astype(np.float32))
    score = chain(
        "score", inputs={"data": data, "features": features}, options={"candidate": document, "replicates": 0},
        strategies={"one": ("scorer", "logme", {}), "two": ("scorer", "parc", {})},
    )  # fmt: skip
    entry = chain.store.read(score, Ranked)
    assert {"logme", "parc"} == entry.scores.keys()
    assert [note.startswith(remark) for note in entry.notes] == [True]


class _Silent(Scorer):
    """As a plugin that was written before there were remarks."""

    card: ClassVar[Card] = Card(name="silent", summary="none", reference="none whatever")

    def score(self, evidence: Evidence) -> float:
        return 0.0


class _Faulty(_Silent):
    card: ClassVar[Card] = Card(name="faulty", summary="none", reference="none whatever")
    way: str

    def remarks(self, evidence: Evidence) -> tuple[str, ...]:
        if self.way == "refuses":
            raise UserError("nothing to say")
        if self.way == "breaks":
            raise KeyError("d")
        return "one\nline"  # type: ignore[return-value]


def test_remarks_that_fail_are_said_and_end_nothing() -> None:
    ways = {
        "refuses": "no remarks, nothing to say",
        "breaks": "no remarks, KeyError: 'd'",
        "text": "one line",
    }
    evidence = tiny_evidence()
    for way, said in ways.items():
        found = [line for one in (_Silent(), _Faulty(way=way)) for line in remarks(one, whole(evidence))]
        assert found == [f"faulty: {said}"]
    assert _Silent().remarks(evidence) == ()

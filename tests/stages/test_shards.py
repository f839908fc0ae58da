"""Features in shards: the same features, the same moments, the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.stages.conftest import Chain, FeatureBench
from tlcore.features.files import load_features
from tlcore.features.folds import fold_moments
from tlcore.features.moments import Moments
from tlcore.features.shards import merge_groups, shard_bounds
from tlcore.stages.shards import joined
from tlcore.stages.values import CheckedData, FeatureFiles
from tlcore.values import Ref

PER_CLASS = 90  # 0.64 of 270 images are for training: three batches


class Sharded(FeatureBench):
    def merged(self, count: int) -> Ref:
        level = [self.features(shard=[index, count]) for index in range(count)]
        while len(level) > 1:
            level = [self.merge(level[a:b]) for a, b in merge_groups(len(level))]
        return level[0]


@pytest.fixture
def sharded(chain: Chain, tmp_path: Path) -> Sharded:
    return Sharded(chain, tmp_path, per_class=PER_CLASS, seed=1)


def test_shards_hold_the_same_bits_and_their_moments_add_up(sharded: Sharded) -> None:
    store = sharded.chain.store
    whole = load_features(store.folder(sharded.features()))
    merged = sharded.merged(3)
    value = store.read(merged, FeatureFiles)
    assert len(value.shards) == 3 and value.images == len(whole.sample_ids) > 128
    parts = [load_features(store.folder(ref)) for ref in value.shards]
    assert [len(part.sample_ids) for part in parts] == [b - a for a, b in shard_bounds(value.images, 3)]
    found = joined(parts)
    assert found.sample_ids == whole.sample_ids
    assert found.probabilities is not None and whole.probabilities is not None
    assert found.features.tobytes() == whole.features.tobytes()
    assert found.probabilities.tobytes() == whole.probabilities.tobytes()
    checked = store.read(sharded.data, CheckedData)
    labels = np.array([checked.classes.index(name.partition("/")[0]) for name in whole.sample_ids])
    expected = fold_moments(whole.features, labels, len(checked.classes), whole.probabilities)
    for fold, moments in enumerate(expected):
        stored = Moments.load(store.folder(merged) / f"fold-{fold}.npz")
        np.testing.assert_array_equal(stored.class_counts, moments.class_counts)
        np.testing.assert_allclose(stored.mean, moments.mean, rtol=1e-12)
        np.testing.assert_allclose(stored.centred_gram, moments.centred_gram, rtol=1e-9, atol=1e-9)
        assert stored.source_mass is not None and moments.source_mass is not None
        np.testing.assert_allclose(stored.source_mass, moments.source_mass, rtol=1e-12)


@pytest.mark.slow  # every scorer, with redraws, twice
def test_scores_do_not_hang_on_the_number_of_shards(sharded: Sharded) -> None:
    scorers = sharded.chain.registry.names("scorer")
    assert "logme" in scorers
    whole = sharded.score(sharded.features(), *scorers, replicates=8)
    split = sharded.score(sharded.merged(3), *scorers, replicates=8)
    assert whole.scores.keys() == split.scores.keys() and whole.scores
    for name, value in whole.scores.items():
        assert split.scores[name] == pytest.approx(value, rel=1e-7, abs=1e-9), name


def test_a_merge_reads_no_feature(sharded: Sharded) -> None:
    store = sharded.chain.store
    parts = [sharded.features(shard=[index, 3]) for index in range(3)]
    for ref in parts:
        (store.folder(ref) / "features.npy").unlink()
    value = store.read(sharded.merge(parts), FeatureFiles)
    assert value.shards == tuple(parts)


def test_without_shards_no_moments_lie_beside_the_features(sharded: Sharded) -> None:
    folder = sharded.chain.store.folder(sharded.features())
    assert not list(folder.glob("fold-*"))

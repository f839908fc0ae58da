"""Which engine computed features, where it is written down, and what may be trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.stages.conftest import Chain, FeatureBench, source
from tlcore.errors import UserError
from tlcore.features.engines.choice import ENGINES, missing
from tlcore.features.engines.hardware import Hardware
from tlcore.stages.values import FeatureFiles
from tlcore.values import Ref

BF16_IS_MISSING = missing("bf16", Hardware.of("cpu"))


class Ready(FeatureBench):
    def probe(self, **inputs: Ref) -> np.ndarray:
        """The head's weights that a linear probe learns."""
        ref = self.chain(
            "train",
            inputs={"data": self.data, "pixels": self.pixels, **inputs},
            options={"candidate": self.candidate.recipe(), "pretrained": True},
            strategies={"source": source(self.candidate), "tuner": ("tuner", "linear-probe", {})},
        )
        weights = load_file(self.chain.store.folder(ref) / "weights.safetensors")
        return next(value for name, value in sorted(weights.items()) if value.shape == (3, self.dim))

    @property
    def dim(self) -> int:
        return self.chain.store.read(self.features(), FeatureFiles).dim


@pytest.fixture
def ready(chain: Chain, tmp_path: Path) -> Ready:
    return Ready(chain, tmp_path, per_class=40, seed=0)


def _files(ready: Ready, ref: Ref) -> FeatureFiles:
    return ready.chain.store.read(ref, FeatureFiles)


def test_features_say_which_engine_computed_them(ready: Ready) -> None:
    chosen = _files(ready, ready.features())
    assert chosen.engine in ENGINES and chosen.engine_note == ""
    for engine in ("eager", "folded"):
        assert _files(ready, ready.features(engine=engine)).engine == engine


def test_an_unknown_engine_is_the_callers_to_mend(ready: Ready) -> None:
    with pytest.raises(UserError, match='no engine named "fast"'):
        ready.features(engine="fast")


def test_shards_that_took_several_engines_name_them_all_and_keep_a_note(ready: Ready) -> None:
    parts = []
    for index, engine in enumerate(("folded", "eager")):
        ref = ready.features(engine=engine, shard=[index, 2])
        if engine == "eager":  # as a shard leaves it whose engine was not the wanted one
            value = _files(ready, ref).model_copy(
                update={"engine_note": "bf16: cosine 0.9; computed by eager"}
            )
            (ready.chain.store.folder(ref) / "value.json").write_text(value.model_dump_json())
        parts.append(ref)
    merged = ready.merge(parts)
    files = _files(ready, merged)
    assert files.engine == "eager+folded" and files.engine_note == "bf16: cosine 0.9; computed by eager"
    entry = ready.score(merged, "logme")
    assert entry.engine == "eager+folded"
    assert "engine bf16: cosine 0.9; computed by eager" in entry.notes
    assert any(note.startswith("engines differ between shards (eager, folded)") for note in entry.notes)


def test_the_rate_of_merged_shards_is_that_of_one_worker(ready: Ready) -> None:
    parts = tuple(ready.features(engine="folded", shard=[index, 2]) for index in range(2))
    for ref, seconds in zip(parts, (0.5, 1.5), strict=True):
        value = _files(ready, ref).model_copy(update={"seconds": seconds, "images_per_second": 0.0})
        (ready.chain.store.folder(ref) / "value.json").write_text(value.model_dump_json())
    files = _files(ready, ready.merge(parts))
    assert files.seconds == 2.0 and files.images_per_second == files.images / 2


def test_a_score_names_its_engine_and_nothing_else_where_all_went_well(ready: Ready) -> None:
    entry = ready.score(ready.features(engine="folded"), "logme")
    assert entry.engine == "folded" and not any("engine" in note for note in entry.notes)


def test_machines_that_choose_differently_do_not_find_each_others_features(ready: Ready) -> None:
    facts = {"bf16": "none", "onnxruntime": True, "compiler": True}
    plain = ready.features(hardware=facts)
    other = ready.features(hardware={**facts, "bf16": "avx512"})
    assert plain.key != other.key and _files(ready, plain).engine in ("eager", "folded")
    assert ready.features(hardware=dict(reversed(facts.items()))) == plain


@pytest.mark.slow
def test_a_head_is_trained_on_the_features_of_exact_pixels_that_it_is_given(ready: Ready) -> None:
    embedded = ready.chain(
        "embed", inputs={"data": ready.data, "pixels": ready.pixels}, options={"candidate": ready.candidate.recipe()},
        strategies={"source": source(ready.candidate)},
    )  # fmt: skip
    alone = ready.probe()
    assert np.allclose(alone, ready.probe(embedded=embedded), atol=1e-5)
    assert np.array_equal(
        alone, ready.probe(features=ready.features())
    )  # those that scores look at are not exact
    file = ready.chain.store.folder(embedded) / "features.npy"
    shuffled = np.load(file)[::-1].copy()  # features that nobody could mistake for the right ones
    file.chmod(0o644)
    np.save(file, shuffled)
    changed = ready.chain(
        "train", "again", inputs={"data": ready.data, "pixels": ready.pixels, "embedded": embedded},
        options={"candidate": ready.candidate.recipe(), "pretrained": True},
        strategies={"source": source(ready.candidate), "tuner": ("tuner", "linear-probe", {"penalties": 6})},
    )  # fmt: skip
    weights = load_file(ready.chain.store.folder(changed) / "weights.safetensors")
    head = next(value for name, value in sorted(weights.items()) if value.shape == (3, ready.dim))
    assert not np.allclose(alone, head, atol=1e-3)

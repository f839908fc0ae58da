"""Two processes of one training, as accelerate starts them (gloo, on the CPU)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tlcore.errors import UserError
from tlcore.stages.base import Choice, StageJob, run_stage
from tlcore.stages.values import Trained
from tlcore.store import Store
from tlcore.values import Candidate, Ref

from .conftest import Chain, source, write_images, write_zoo


def _job(
    candidate: Candidate, data: Ref, pixels: Ref, options: dict[str, object], processes: int
) -> StageJob:
    return StageJob(
        stage="train", subject="two", inputs={"data": (data,), "pixels": (pixels,)},
        options={"candidate": candidate.recipe(), "pretrained": True},
        strategies={
            "source": Choice(kind="model-source", name=source(candidate)[1], options=source(candidate)[2]),
            "tuner": Choice(kind="tuner", name="lp-ft", options=options),
        },
        threads=1, processes=processes,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_as_one_does(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_images(tmp_path / "photos", 10, seed=0))
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    pixels = chain.pixels(data, candidate)
    options: dict[str, object] = {"epochs": 2, "batch_size": 6, "lr": 1e-3, "mixup": 0.4}
    found: dict[int, tuple[Trained, dict[str, np.ndarray]]] = {}
    other = _copy(
        chain.store, tmp_path / "other"
    )  # how many processes share a training is no part of its address
    for processes, place in ((1, chain.store), (2, other)):
        job = _job(candidate, data, pixels, options, processes)
        ref = run_stage(place, chain.registry, job).ref
        found[processes] = (place.read(ref, Trained), load_file(place.folder(ref) / "weights.safetensors"))
    (one, weights), (two, others) = found[1], found[2]
    assert [line.phase for line in one.checkpoint.history] == [line.phase for line in two.checkpoint.history]
    for left, right in zip(one.checkpoint.history, two.checkpoint.history, strict=True):
        assert left.measures == pytest.approx(right.measures, abs=1e-3)
    for name, value in weights.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(others[name], value, rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_an_error_in_a_process_arrives_as_it_was_raised(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_images(tmp_path / "photos", 10, seed=0))
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    job = _job(candidate, data, chain.pixels(data, candidate), {"epochs": 1, "lr": 0.1, "batch_size": 6}, 2)
    broken = job.model_copy(
        update={"strategies": {**job.strategies, "tuner": Choice(kind="tuner", name="zero-shot", options={})}}
    )
    with pytest.raises(UserError, match="has no text tower") as caught:
        run_stage(chain.store, chain.registry, broken)
    assert "--models open-clip" in caught.value.hint


def _copy(store: Store, root: Path) -> Store:
    import shutil

    shutil.copytree(store.root, root)
    return Store.open(root)

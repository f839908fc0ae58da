from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from tlcore.errors import PluginError, UserError
from tlcore.features.normalisation import normalise
from tlcore.training.activations import ActivationStore
from tlcore.training.augment import augment
from tlcore.training.split import Frozen, Split, split
from tlcore.training.streams import StreamData, draw_seed
from tlcore.values import Preprocess

PREPROCESS = Preprocess(height=8, width=8, crop_pct=1.0)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
BRIGHT = 12
PIXELS[:, 0, 0, 0] //= 2
PIXELS[BRIGHT, 0, 0, 0] = 255
ROWS = np.array([3, 1, 4, 15, 9, 2, 6, 5, 17, 8, 7])


def convolution(scale: float = 1.0) -> Frozen:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Conv2d(5, 2, 1))
    with torch.no_grad():
        net[0].weight.mul_(scale)
    parts = split(net.to(memory_format=torch.channels_last), {"1.weight", "1.bias"}, torch.randn(2, 3, 8, 8))
    assert isinstance(parts, Split)
    return parts.frozen


def layers(module: nn.Module) -> Frozen:
    graph = fx.Graph()
    graph.output((graph.call_module("layer", (graph.placeholder("x"),)),))
    return Frozen(fx.GraphModule({"layer": module}, graph), packed=False)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ActivationStore]:
    def build(frozen: Frozen | None = None, rows: np.ndarray = ROWS, **parts: Any) -> ActivationStore:
        torch.set_num_threads(1)
        stream = StreamData(PIXELS, rows, None)
        given = {
            "kind": "flip",
            "views": 3,
            "max_bytes": 10**9,
            "seed": 7,
            "phase": 1,
            "batch_size": 4,
            **parts,
        }
        return ActivationStore(
            tmp_path, convolution() if frozen is None else frozen, stream, PREPROCESS, **given
        )

    return build


def expected(frozen: Frozen, row: int, view: int) -> Tensor:
    image = torch.from_numpy(PIXELS[row : row + 1])
    if view:
        seed = draw_seed(7, 1, "activations", view, row)
        image = augment(image, "flip", torch.Generator().manual_seed(seed))
    return frozen(normalise(image, PREPROCESS))[0]


def test_a_batch_holds_what_the_frozen_part_makes_of_each_image_and_view(
    make: Callable[..., ActivationStore],
) -> None:
    frozen = convolution()
    store = make(frozen)
    index = np.array([5, 0, 10, 5])
    for view in range(3):
        found = store.batch(index, view)
        want = torch.stack([expected(frozen, int(ROWS[place]), view) for place in index])
        assert found.dtype == torch.float32 and found.shape == want.shape
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(store.batch(index, 1), store.batch(index, 2))
    assert store.batch(index, 0, torch.bfloat16).dtype == torch.bfloat16


def test_views_depend_neither_on_the_batch_nor_on_the_other_images(
    make: Callable[..., ActivationStore],
) -> None:
    every, some = make(batch_size=11), make(rows=ROWS[[7, 2]], batch_size=1)
    torch.testing.assert_close(every.batch(np.array([7, 2]), 2), some.batch(np.array([0, 1]), 2))


def test_a_finished_view_is_found_again_and_other_weights_are_not_taken_for_it(
    make: Callable[..., ActivationStore], tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    first = make(on_progress=lambda done, total: calls.append((done, total)))
    first.prepare(0)
    first.prepare(1)
    assert calls[-1] == (22, 33)
    calls.clear()
    again = make(on_progress=lambda done, total: calls.append((done, total)))
    assert torch.equal(again.batch(np.arange(11), 1), first.batch(np.arange(11), 1)) and not calls
    make(convolution(2.0), on_progress=lambda done, total: calls.append((done, total))).prepare(0)
    assert calls
    again.remove()
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unfinished_or_damaged_view_is_worked_out_again(
    make: Callable[..., ActivationStore], tmp_path: Path
) -> None:
    wanted = make().batch(np.arange(11), 0).clone()
    (path,) = tmp_path.iterdir()
    (tmp_path / f".{path.name}.99999").write_bytes(b"half")
    path.write_bytes(path.read_bytes()[:200])
    assert torch.equal(make().batch(np.arange(11), 0), wanted)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("limit", "views"), [(0, 1), (2 * 11 * 80 * 2, 2), (10**9, 3)])
def test_as_many_views_as_fit_but_one_at_least(
    make: Callable[..., ActivationStore], limit: int, views: int
) -> None:
    assert make(max_bytes=limit).views == views


def test_without_augmentation_one_view_is_all(make: Callable[..., ActivationStore]) -> None:
    store = make(kind="none")
    assert store.views == 1
    with pytest.raises(PluginError, match="no view 1"):
        store.batch(np.array([0]), 1)


def test_numbers_beyond_half_precision_are_kept_in_float32(
    make: Callable[..., ActivationStore], tmp_path: Path
) -> None:
    frozen = convolution(1e6)
    torch.testing.assert_close(
        make(frozen).batch(np.array([4]), 0)[0], expected(frozen, int(ROWS[4]), 0), rtol=1e-5, atol=1.0
    )
    (path,) = tmp_path.iterdir()
    assert np.load(path).dtype == np.float32


class _Spiky(nn.Module):
    """Grows past float16's range with the image whose first number is the largest of all."""

    def __init__(self, spike: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.ones(4) * spike)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1, 0, 0] > 2.0, self.level, torch.ones(len(x), 4))


def test_a_late_image_beyond_half_precision_makes_its_view_float32(
    make: Callable[..., ActivationStore],
) -> None:
    rows = np.array([*[row for row in range(20) if row != BRIGHT], BRIGHT])
    found = make(layers(_Spiky(1e6)), rows, kind="none").batch(np.arange(20), 0)
    assert found[-1].tolist() == [1e6] * 4 and found[0].tolist() == [1.0] * 4


def test_numbers_that_are_not_finite_name_the_image(make: Callable[..., ActivationStore]) -> None:
    with pytest.raises(PluginError, match=f"not finite, first for image {BRIGHT}"):
        make(layers(_Spiky(float("inf"))), np.array([BRIGHT]))


def test_no_image_and_no_room_are_said(
    make: Callable[..., ActivationStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no image"):
        make(rows=ROWS[:0])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(UserError, match="the disk has"):
        make()


def test_rows_keep_the_order_in_memory_that_convolutions_want(make: Callable[..., ActivationStore]) -> None:
    found = make().batch(np.arange(4), 0)
    assert found.shape == (4, 5, 4, 4) and found.is_contiguous(memory_format=torch.channels_last)
    assert make(layers(nn.Flatten()), kind="none").batch(np.arange(4), 0).is_contiguous()


def test_a_policy_of_timm_is_drawn_per_image(make: Callable[..., ActivationStore]) -> None:
    store = make(kind="none", randaugment="rand-m9-mstd0.5", batch_size=2)
    assert store.views == 3
    other = make(kind="none", randaugment="rand-m9-mstd0.5", rows=ROWS[3:5])
    torch.testing.assert_close(store.batch(np.array([3, 4]), 1), other.batch(np.array([0, 1]), 1))

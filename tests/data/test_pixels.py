from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlcore.data.images import decode, load_pixels, open_rgb, to_pixels
from tlcore.errors import UserError
from tlcore.values import Preprocess


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def write(folder: Path, count: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        noise(30 + index, 40, index).save(path)
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [
        # Shorter side onto round(64 / 0.8) = 80, the longer one along, then 64 x 64 of the middle.
        ((300, 200), (120, 80), (28, 8)),
        ((200, 300), (80, 120), (8, 28)),
        ((64, 64), (80, 80), (8, 8)),
        ((33, 41), (80, 99), (8, 17)),
    ],
)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_crop_is_resize_then_centre_cut(
    size: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int], interpolation: str
) -> None:
    image = noise(*size)
    rule = Preprocess(height=64, width=64, crop_pct=0.8, interpolation=interpolation)
    whole = np.asarray(image.resize(resized, Image.Resampling[interpolation.upper()]))
    left, top = corner
    np.testing.assert_array_equal(to_pixels(image, rule), whole[top : top + 64, left : left + 64])


def test_shrinking_is_antialiased() -> None:
    # One-pixel stripes shrunk four times are even grey; without antialiasing they stay black or white.
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = to_pixels(Image.fromarray(stripes), Preprocess(height=64, width=64, crop_pct=1.0))
    assert np.abs(pixels[:, 2:-2].astype(int) - 127).max() <= 2


def test_crop_takes_the_centre() -> None:
    values = np.zeros((100, 300, 3), np.uint8)
    values[:, 100:200] = 255
    pixels = to_pixels(Image.fromarray(values), Preprocess(height=50, width=50, crop_pct=1.0))
    assert pixels[:, 2:-2].min() == 255


def test_squash_keeps_the_whole_image() -> None:
    values = np.zeros((100, 300, 3), np.uint8)
    values[:, :150, 0] = 255
    pixels = to_pixels(Image.fromarray(values), Preprocess(height=40, width=40, resize="squash"))
    assert (pixels[:, :19, 0] == 255).all()
    assert (pixels[:, 21:, 0] == 0).all()


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    out=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    crop_pct=st.floats(0.3, 1.0),
    resize=st.sampled_from(["crop", "squash"]),
)
@settings(max_examples=60, deadline=None)
def test_any_image_becomes_exactly_the_input_size(
    width: int, height: int, out: tuple[int, int], crop_pct: float, resize: str
) -> None:
    image = Image.new("RGB", (width, height), (9, 90, 200))
    rule = Preprocess(height=out[0], width=out[1], crop_pct=crop_pct, resize=resize)
    pixels = to_pixels(image, rule)
    assert pixels.shape == (*out, 3)
    assert pixels.dtype == np.uint8
    # One colour stays one colour: nothing from outside of the image comes in.
    assert (pixels == np.array([9, 90, 200], np.uint8)).all()


def test_a_strip_of_an_image_costs_no_gigabytes() -> None:
    strip = Image.new("RGB", (200_000, 2), (1, 2, 3))
    assert to_pixels(strip, Preprocess(height=64, width=64)).shape == (64, 64, 3)


def test_decode_writes_what_the_rule_says_in_order(tmp_path: Path) -> None:
    uris = write(tmp_path / "in", 37)
    rules = [
        Preprocess(height=16, width=16),
        Preprocess(height=24, width=16, resize="squash"),
        Preprocess(height=16, width=16, mean=(0.5, 0.5, 0.5)),
    ]
    seen: list[tuple[int, int]] = []
    files = decode(
        uris, rules, folder=tmp_path / "out", workers=3, on_progress=lambda *step: seen.append(step)
    )
    assert set(files) == {rules[0].decode_key(), rules[1].decode_key()}
    for rule in rules:
        pixels = load_pixels(files[rule.decode_key()])
        assert pixels.shape == (37, rule.height, rule.width, 3)
        for row, uri in enumerate(uris):
            np.testing.assert_array_equal(pixels[row], to_pixels(open_rgb(uri), rule))
    assert seen[-1] == (37, 37)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in files.values()
    )


def test_decode_of_no_images_is_an_empty_array(tmp_path: Path) -> None:
    rule = Preprocess(height=16, width=16)
    assert load_pixels(decode([], [rule], folder=tmp_path)[rule.decode_key()]).shape == (0, 16, 16, 3)


def test_a_file_that_went_bad_after_the_check_is_named_and_nothing_stays(tmp_path: Path) -> None:
    uris = write(tmp_path / "in", 40)
    Path(uris[20]).write_bytes(b"")
    with pytest.raises(UserError, match="passed the check") as caught:
        decode(uris, [Preprocess(height=16, width=16)], folder=tmp_path / "out", workers=2)
    assert caught.value.where == uris[20]
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_that_raises_stops_the_work(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(
            write(tmp_path / "in", 40),
            [Preprocess(height=16, width=16)],
            folder=tmp_path / "out",
            on_progress=stop,
        )
    assert list((tmp_path / "out").iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_decoded_pixels_are_read_only(tmp_path: Path) -> None:
    rule = Preprocess(height=16, width=16)
    pixels = load_pixels(decode(write(tmp_path / "in", 2), [rule], folder=tmp_path)[rule.decode_key()])
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0

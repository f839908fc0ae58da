from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tlcore.data import scoring_pixels as module
from tlcore.data.image_file import MAX_PIXELS, BadImage
from tlcore.data.images import decode, exact_pixels, load_pixels, resized_size
from tlcore.data.scoring_pixels import MARGIN, reduction, scoring_pixels
from tlcore.values import Preprocess

RULE = Preprocess(height=64, width=64, interpolation="bicubic")
REDUCED, SMALL = (900, 700), (150, 120)
"""Sizes of which RULE reads the first at 1/4 and the second whole."""


@functools.cache
def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Structure at all scales, as in photographs, and no symmetry that would hide a wrong orientation."""
    draw = np.random.default_rng(seed)
    values = np.linspace(0, 90, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None] * [
        1,
        0.5,
        0,
    ]
    for cell in (2, 8, 32):
        coarse = draw.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        values = values + 0.15 * np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=float)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def apart(path: Path, rule: Preprocess = RULE) -> float:
    """Mean distance of the pixels for scoring from the exact ones, in levels of 255."""
    (fast,), (exact,) = (read(str(path), [rule], MAX_PIXELS) for read in (scoring_pixels, exact_pixels))
    assert fast.shape == exact.shape == (rule.height, rule.width, 3)
    assert fast.dtype == np.uint8
    return float(np.abs(fast.astype(int) - exact).mean())


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize(
    ("size", "bound"), [(REDUCED, 1.0), ((901, 703), 1.0), ((700, 900), 1.0), (SMALL, 0.1), ((30, 21), 0.1)]
)
def test_pixels_for_scoring_are_close_to_the_exact_ones(
    tmp_path: Path, size: tuple[int, int], bound: float, resize: str, interpolation: str
) -> None:
    photograph(*size).save(tmp_path / "a.jpg", quality=90)
    rule = RULE.model_copy(update={"resize": resize, "interpolation": interpolation})
    assert apart(tmp_path / "a.jpg", rule) <= (0.1 if interpolation == "nearest" else bound)


def test_a_large_jpeg_is_decoded_at_a_quarter_and_a_small_one_whole(tmp_path: Path) -> None:
    photograph(*REDUCED).save(tmp_path / "large.jpg", quality=90)
    with Image.open(tmp_path / "large.jpg") as image:
        image.draft(None, (225, 175))
        image.load()
    assert image.size == (225, 175)
    # 700 is the side that decides: round(64 / 0.875) = 73, and 900 * 73 / 700 = 94.
    expected = np.asarray(image.resize((94, 73), Image.Resampling.BICUBIC))[4:68, 15:79].astype(int)
    (found,) = scoring_pixels(str(tmp_path / "large.jpg"), [RULE], MAX_PIXELS)
    assert np.abs(found - expected).max() <= 1
    assert apart(tmp_path / "large.jpg") > 0
    assert (reduction(*REDUCED, RULE), reduction(*SMALL, RULE)) == (4, 1)


@given(
    size=st.tuples(st.integers(1, 8000), st.integers(1, 8000)),
    out=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    crop_pct=st.floats(0.3, 1.0),
    resize=st.sampled_from(["crop", "squash"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
@settings(max_examples=300, deadline=None)
def test_an_image_never_shrinks_below_the_margin_over_what_the_rule_resizes_to(
    size: tuple[int, int], out: tuple[int, int], crop_pct: float, resize: str, interpolation: str
) -> None:
    rule = Preprocess(
        height=out[0], width=out[1], crop_pct=crop_pct, resize=resize, interpolation=interpolation
    )
    scale = reduction(*size, rule)
    assert scale in {1, 2, 4, 8}
    if scale > 1:
        needed = resized_size(*size, rule)
        assert all(side / scale >= MARGIN * least for side, least in zip(size, needed, strict=True))
        assert interpolation != "nearest"


@given(
    width=st.integers(1, 400), height=st.integers(1, 400),
    out=st.tuples(st.integers(8, 40), st.integers(8, 40)), crop_pct=st.floats(0.3, 1.0),
    resize=st.sampled_from(["crop", "squash"]), ending=st.sampled_from(["jpg", "png"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_image_becomes_the_input_size_and_one_colour_stays_one(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, out: tuple[int, int], crop_pct: float,
    resize: str, ending: str,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("one") / f"a.{ending}"
    Image.new("RGB", (width, height), (128, 128, 128)).save(path)
    rule = Preprocess(height=out[0], width=out[1], crop_pct=crop_pct, resize=resize)
    (pixels,) = scoring_pixels(str(path), [rule], MAX_PIXELS)
    assert pixels.shape == (*out, 3)
    assert (pixels == 128).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [REDUCED, SMALL])
def test_the_exif_orientation_is_applied_reduced_or_not(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(*size).save(tmp_path / "a.jpg", exif=exif, quality=90)
    assert apart(tmp_path / "a.jpg") <= 1


@pytest.mark.parametrize("size", [REDUCED, SMALL])
@pytest.mark.parametrize(
    "mode_and_options",
    [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": 0}), ("RGB", {"keep_rgb": True})],
    ids=str,
)  # fmt: skip
def test_every_kind_of_jpeg_is_close(
    tmp_path: Path, size: tuple[int, int], mode_and_options: tuple[str, dict[str, bool]]
) -> None:
    mode, options = mode_and_options
    photograph(*size).convert(mode).save(tmp_path / "a.jpg", quality=90, **options)
    assert apart(tmp_path / "a.jpg") <= 1


def test_of_a_camera_file_with_several_pictures_the_first_counts(tmp_path: Path) -> None:
    more = [photograph(*REDUCED, seed=1)]
    photograph(*REDUCED).save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=more, quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert apart(tmp_path / "a.jpg") <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_of_a_png_is_as_exact(tmp_path: Path, mode: str) -> None:
    image = photograph(*SMALL)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257)
    else:
        image = (
            image.convert("RGBA" if mode == "P" else mode).quantize(32)
            if mode == "P"
            else image.convert(mode)
        )
    image.save(tmp_path / "a.png")
    assert apart(tmp_path / "a.png") <= 0.1


@pytest.mark.parametrize("ending", ["bmp", "webp", "gif", "tiff"])
def test_other_formats_are_as_exact(tmp_path: Path, ending: str) -> None:
    photograph(*REDUCED).save(tmp_path / f"a.{ending}")
    assert apart(tmp_path / f"a.{ending}") <= 0.1


def test_a_jpeg_that_is_named_png_is_read_for_what_it_is(tmp_path: Path) -> None:
    photograph(*REDUCED).save(tmp_path / "a.jpg", quality=90)
    shutil.move(tmp_path / "a.jpg", tmp_path / "a.png")
    assert apart(tmp_path / "a.png") <= 1


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_strip_loses_its_ends_as_by_the_rule(tmp_path: Path, ending: str) -> None:
    photograph(4000, 40).save(tmp_path / f"a.{ending}")
    assert apart(tmp_path / f"a.{ending}") <= 0.1


def test_a_damaged_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    photograph(*REDUCED).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xee" * 30)
    assert apart(tmp_path / "a.jpg") <= 1


def test_a_file_with_megabytes_behind_the_image_is_read(tmp_path: Path) -> None:
    photograph(*SMALL).save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(bytes(2_000_000))
    assert apart(tmp_path / "a.jpg") <= 0.1


def broken(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def announced_as_huge(path: Path) -> None:
    """The frame header says 60,000 x 60,000 pixels: its sides are the 4 bytes after SOF0's length and precision."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xea\x60\xea\x60"
    path.write_bytes(bytes(data))


def announced_as_higher(path: Path) -> None:
    """Twice as many rows as there is data for: the stream ends too soon."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 2] = (2 * int.from_bytes(data[at : at + 2], "big")).to_bytes(2, "big")
    path.write_bytes(bytes(data[:-2]))


@pytest.mark.parametrize("size", [REDUCED, SMALL])
@pytest.mark.parametrize("fault", ["cut", "text", "empty", "missing", "huge", "higher", "folder"])
def test_a_bad_file_is_refused_with_the_words_of_the_exact_reader(
    tmp_path: Path, fault: str, size: tuple[int, int]
) -> None:
    path = tmp_path / "a.jpg"
    photograph(*size).save(path)
    if fault == "folder":
        path.unlink()
        path.mkdir()
    faults = {
        "cut": broken, "huge": announced_as_huge, "higher": announced_as_higher, "missing": Path.unlink,
        "text": lambda file: file.write_text("no image"), "empty": lambda file: file.write_bytes(b""),
    }  # fmt: skip
    faults.get(fault, lambda file: None)(path)
    said = []
    for read in (exact_pixels, scoring_pixels):
        with pytest.raises(BadImage) as caught:
            read(str(path), [RULE], MAX_PIXELS)
        said.append((caught.value.kind, caught.value.reason))
    assert said[0] == said[1]


def test_the_bound_on_pixels_holds_for_what_the_file_has_not_for_what_is_decoded(tmp_path: Path) -> None:
    photograph(*REDUCED).save(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match="900 x 700 pixels, over the limit of 600,000"):
        scoring_pixels(str(tmp_path / "a.jpg"), [RULE], 600_000)


def test_what_a_rule_gives_does_not_hang_on_the_other_rules(tmp_path: Path) -> None:
    photograph(*REDUCED).save(tmp_path / "a.jpg")
    rules = [RULE.model_copy(update={"height": side, "width": side}) for side in (16, 64, 160)]
    rules.append(RULE.model_copy(update={"interpolation": "nearest"}))
    assert {reduction(*REDUCED, rule) for rule in rules} == {8, 4, 2, 1}
    path = str(tmp_path / "a.jpg")
    for rule, pixels in zip(rules, scoring_pixels(path, rules, MAX_PIXELS), strict=True):
        np.testing.assert_array_equal(pixels, scoring_pixels(path, [rule], MAX_PIXELS)[0])


@pytest.fixture
def without_fast_decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a later torchvision will be."""
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    module._jpeg_decoder.cache_clear()
    yield
    module._jpeg_decoder.cache_clear()


@pytest.mark.usefixtures("without_fast_decoder")
@pytest.mark.parametrize("size", [REDUCED, SMALL])
def test_without_the_fast_decoder_pillow_does_it(tmp_path: Path, size: tuple[int, int]) -> None:
    assert module._jpeg_decoder() is None
    photograph(*size).save(tmp_path / "a.jpg", quality=90)
    assert apart(tmp_path / "a.jpg") <= 1


def test_the_fast_decoder_is_there_in_the_installed_version(tmp_path: Path) -> None:
    photograph(*SMALL).save(tmp_path / "a.jpg")
    with module.opened(tmp_path / "a.jpg", MAX_PIXELS) as image:
        pixels = module._fast_decoded(str(tmp_path / "a.jpg"), image)
    assert pixels is not None
    assert pixels.shape == (120, 150, 3)


def test_decode_writes_the_pixels_of_the_reader_it_is_given(tmp_path: Path) -> None:
    uris = []
    for number in range(5):
        uris.append(str(tmp_path / f"{number}.jpg"))
        photograph(*REDUCED, seed=number).save(uris[-1])
    files = decode(uris, [RULE], folder=tmp_path / "out", read=scoring_pixels, workers=2)
    pixels: NDArray[np.uint8] = load_pixels(files[RULE.decode_key()])
    for row, uri in enumerate(uris):
        np.testing.assert_array_equal(pixels[row], scoring_pixels(uri, [RULE], MAX_PIXELS)[0])


@pytest.mark.shared
def test_photographs_are_close_for_every_rule(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "flowers5" / "test").rglob("*.jpg"))[::15]
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            image.resize((5 * image.width, 5 * image.height), Image.Resampling.LANCZOS).save(
                tmp_path / f"{number}.jpg", quality=90
            )
    rules = [Preprocess(height=side, width=side, interpolation="bicubic") for side in (96, 224)]
    for rule in rules:
        assert max(apart(path, rule) for path in paths) <= 0.1
        assert max(apart(path, rule) for path in tmp_path.glob("*.jpg")) <= 3

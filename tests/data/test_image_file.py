from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcore.data.image_file import BadImage, inspect, open_rgb
from tlcore.errors import UserError


def noise(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def kind_of(path: Path, max_pixels: int = 100_000_000) -> tuple[str, str]:
    """The kind that both readers give; they must agree."""
    kinds = []
    for read in (open_rgb, inspect):
        with pytest.raises(BadImage) as caught:
            read(path, max_pixels=max_pixels)
        kinds.append((caught.value.kind, caught.value.reason))
        assert isinstance(caught.value, UserError)
        assert str(path) in str(caught.value)
    assert kinds[0] == kinds[1]
    return kinds[0]


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "gif", "tiff"])
def test_every_format_opens_as_rgb(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    noise().save(path)
    image = open_rgb(path)
    assert (image.mode, image.size) == ("RGB", (96, 64))
    assert inspect(path).width == 96
    assert np.asarray(image).shape == (64, 96, 3)


def test_a_lossless_file_comes_back_unchanged(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "a.png")), np.asarray(noise()))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("cut", [1, 2, 100, 0.1, 0.5, 0.9])
def test_a_jpeg_that_lost_its_end_is_found_by_both_readers(
    tmp_path: Path, cut: float, progressive: bool
) -> None:
    path = tmp_path / "a.jpg"
    noise(400, 300).save(path, progressive=progressive)
    data = path.read_bytes()
    path.write_bytes(data[: -(int(cut * len(data)) if isinstance(cut, float) else cut)])
    assert kind_of(path)[0] == "truncated"


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "gif", "tiff"])
def test_half_a_file_is_truncated_in_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert kind_of(path)[0] == "truncated"


def test_a_file_that_ends_in_its_header_is_truncated(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:40])
    assert kind_of(tmp_path / "a.jpg")[0] == "truncated"
    (tmp_path / "a.tiff").write_bytes(b"II*\0\x08\0\0\0")
    kind, reason = kind_of(tmp_path / "a.tiff")
    assert kind == "truncated"
    assert "TIFF" in reason


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert kind_of(tmp_path / "a.jpg") == ("empty", "empty file")


def test_a_text_file_named_jpg_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello, I am text")
    assert kind_of(tmp_path / "a.jpg") == ("not-an-image", "not an image")


def test_other_formats_that_pillow_knows_are_not_read(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").rename(tmp_path / "a.png")
    assert kind_of(tmp_path / "a.png")[0] == "not-an-image"


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    assert kind_of(tmp_path / "gone.jpg")[0] == "missing"
    assert kind_of(tmp_path / "folder.jpg") == ("unreadable", "not a file")


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert kind_of(tmp_path / "a.jpg") == ("unreadable", "not a file")


def test_a_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    # 20,000 x 20,000 pixels announced in a few bytes: decoding it would fail in another way.
    pixels = chunk(b"IDAT", zlib.compress(b""))
    (tmp_path / "a.png").write_bytes(png_header(20_000, 20_000) + pixels)
    kind, reason = kind_of(tmp_path / "a.png")
    assert kind == "too-large"
    assert "100,000,000" in reason
    (tmp_path / "b.png").write_bytes(png_header(9_000, 9_000) + pixels)
    assert kind_of(tmp_path / "b.png", max_pixels=80_000_000) == (
        "too-large",
        "too large: 9000 x 9000 pixels, over the limit of 80,000,000",
    )


def test_a_zip_bomb_in_a_png_comment_is_a_bad_image(tmp_path: Path) -> None:
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 80_000_000))
    (tmp_path / "a.png").write_bytes(png_header(8, 8) + comment + chunk(b"IDAT", b""))
    assert kind_of(tmp_path / "a.png")[0] == "unreadable"


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((40, 20, 3), np.uint8)
    upright[:20, :, 0] = 255
    for orientation, stored in (
        (1, upright),
        (3, upright[::-1, ::-1]),
        (6, np.rot90(upright)),
        (8, np.rot90(upright, 3)),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "a.png")), upright)


def test_a_damaged_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xee" * 30)
    assert open_rgb(tmp_path / "a.jpg").size == (96, 64)


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    for ending in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"a.{ending}")
        read = np.asarray(open_rgb(tmp_path / f"a.{ending}"))[..., 1]
        np.testing.assert_array_equal(read, np.rint(values / 257).astype(np.uint8))


def test_thirty_two_bit_pixels_are_refused_with_the_remedy(tmp_path: Path) -> None:
    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "a.tiff")
    kind, reason = kind_of(tmp_path / "a.tiff")
    assert kind == "unreadable"
    assert "8 or 16 bits" in reason


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("RGBA", (20, 10), (255, 255, 255, 128)).convert(mode).save(tmp_path / "a.png")
    image = open_rgb(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == (255, 255, 255)
    assert not recwarn.list


def test_a_palette_with_transparency_keeps_its_colours(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("RGBA", (9, 9), (10, 20, 30, 0)).quantize(4).save(tmp_path / "a.png")
    assert open_rgb(tmp_path / "a.png").getpixel((0, 0)) == (10, 20, 30)
    assert not recwarn.list


def test_cmyk_jpegs_open(tmp_path: Path) -> None:
    Image.new("CMYK", (20, 10), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert open_rgb(tmp_path / "a.jpg").getpixel((1, 1)) == (255, 255, 255)
    assert inspect(tmp_path / "a.jpg").mode == "CMYK"

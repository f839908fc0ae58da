from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcore.report.thumbnails import thumbnail


def decoded(uri: str | None) -> Image.Image:
    assert uri is not None
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_images_of_every_mode_become_rgb_jpeg(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tiff" if mode in ("F", "CMYK", "I") else "x.png")
    gray = Image.fromarray(np.linspace(0, 255, 48 * 32).reshape(32, 48).astype(np.uint8))
    image = (
        Image.fromarray(np.asarray(gray).astype(np.uint16) * 200) if mode == "I;16" else gray.convert(mode)
    )
    image.save(path)
    small = decoded(thumbnail(str(path), side=24))
    assert (small.mode, small.size) == ("RGB", (24, 16))
    low, high = small.convert("L").getextrema()
    assert high - low > 100  # type: ignore[operator]


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert decoded(thumbnail(str(tmp_path / "x.png"))).getpixel((5, 5)) == (255, 255, 255)


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (60, 30)).save(tmp_path / "x.jpg", exif=exif)
    assert decoded(thumbnail(str(tmp_path / "x.jpg"), side=20)).size == (10, 20)


def test_small_images_grow_without_smoothing(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).save(tmp_path / "x.png")
    pixels = np.asarray(decoded(thumbnail(str(tmp_path / "x.png"), side=64)).convert("L"))
    assert pixels[:28, :28].max() < 30 and pixels[:28, 36:].min() > 225


@pytest.mark.parametrize(
    "content", [None, b"", b"no image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0 cut"]
)
def test_what_cannot_be_shown_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    assert thumbnail(str(path)) is None


def test_a_folder_and_an_odd_path_are_none(tmp_path: Path) -> None:
    assert thumbnail(str(tmp_path)) is None
    assert thumbnail("a\x00b") is None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_image_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (11_000, 10_000)).save(tmp_path / "x.png")
    assert thumbnail(str(tmp_path / "x.png")) is None

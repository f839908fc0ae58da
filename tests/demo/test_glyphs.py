from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tlcore.demo.glyphs import DIGITS, LETTERS, Distortion, distort, font_files, glyphs, render_glyph
from tlcore.demo.patterns import SHAPES, TEXTURES, shapes, textures

STILL = Distortion(rotation=0, shear=0, scale=0, shift=0, bend=0, thickness=0, coarse=0, noise=0, contrast=0)


def test_many_fonts_draw_digits_and_none_of_them_draws_signs_instead() -> None:
    fonts = font_files(DIGITS)
    assert len(fonts) >= 15 and list(fonts) == sorted(fonts)
    assert not any(path.name.startswith(("cmsy", "cmex", "LastResort", "STIXSiz")) for path in fonts)
    assert set(font_files(LETTERS)) <= set(font_files("A"))


def test_every_font_draws_ten_different_digits() -> None:
    for font in font_files(DIGITS):
        drawn = [render_glyph(font, digit) for digit in DIGITS]
        assert all(image.shape == (64, 64) and image.max() == 255 and image[0].max() == 0 for image in drawn)
        for one in range(10):
            for other in range(one):
                assert np.abs(drawn[one].astype(int) - drawn[other]).mean() > 5, font.name


@pytest.mark.parametrize(("make", "classes"), [
    (lambda n, seed: glyphs(DIGITS, n, seed=seed), 10),
    (lambda n, seed: glyphs(LETTERS, n, seed=seed), 26),
    (lambda n, seed: shapes(n, seed=seed), len(SHAPES)),
    (lambda n, seed: textures(n, seed=seed), len(TEXTURES)),
])  # fmt: skip
def test_images_follow_the_seed_and_have_ink_in_every_class(make, classes: int) -> None:  # type: ignore[no-untyped-def]
    images, labels = make(6, 1)
    again, _ = make(6, 1)
    other, _ = make(6, 2)
    assert images.dtype == np.uint8 and images.shape == (6 * classes, 32, 32)
    assert np.bincount(labels).tolist() == [6] * classes
    np.testing.assert_array_equal(images, again)
    assert (images != other).any()
    assert (images.reshape(len(images), -1).max(1) > 60).all()


def test_without_distortion_a_glyph_is_its_font_scaled_down() -> None:
    canvas = render_glyph(font_files(DIGITS)[0], "5")
    (image,) = distort(canvas[None], seed=0, distortion=STILL)
    small = np.asarray(Image.fromarray(canvas).resize((32, 32), Image.Resampling.BOX))
    assert np.corrcoef(image.ravel(), small.ravel())[0, 1] > 0.97


def test_strokes_are_bright_on_black() -> None:
    images, _ = glyphs(DIGITS, 20, seed=0)
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    assert np.median(images) <= 2 and np.median(border) == 0
    assert border.mean() < 0.3 * images[:, 8:24, 8:24].mean()


def test_the_bend_moves_ink_and_contrast_takes_brightness_away() -> None:
    canvases = np.repeat(render_glyph(font_files(DIGITS)[0], "8")[None], 8, axis=0)
    from dataclasses import replace

    plain = distort(canvases, seed=0, distortion=STILL).astype(float)
    bent = distort(canvases, seed=0, distortion=replace(STILL, bend=0.05)).astype(float)
    dim = distort(canvases, seed=0, distortion=replace(STILL, contrast=0.5)).astype(float)
    assert np.ptp(plain, axis=0).max() == 0
    assert np.ptp(bent, axis=0).max() > 100
    ratio = dim.sum((1, 2)) / plain.sum((1, 2))
    assert (ratio > 0.49).all() and (ratio < 1.01).all() and np.ptp(ratio) > 0.05

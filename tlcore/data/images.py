"""From files to the network's input: the one decode-and-resize rule, for training, export and prediction alike.

Pixels that only scores look at may come faster and less exactly: `tlcore.data.scoring_pixels`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcore.data.image_file import IMAGE_SUFFIXES, MAX_PIXELS, BadImage, ImageFacts, inspect, open_rgb
from tlcore.errors import UserError
from tlcore.values import Preprocess

__all__ = [
    "IMAGE_SUFFIXES", "MAX_PIXELS", "BadImage", "ImageFacts", "Reader", "decode", "exact_pixels", "inspect", "is_long",
    "load_pixels", "open_rgb", "resized_size", "to_pixels",
]  # fmt: skip

Reader = Callable[[str, Sequence[Preprocess], int], list[NDArray[np.uint8]]]
"""(path, rules, bound on width x height) -> for each rule uint8 [height, width, 3]; raises BadImage."""

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_LONGEST = 20
"""Longer side over shorter side from which on the ends are cut before resizing, see `to_pixels`."""


def to_pixels(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of an RGB image by the rule in `Preprocess`, with Pillow's antialiased filters.

    "crop" resizes so that both sides cover round(height / crop_pct) x round(width / crop_pct) (for a square
    input: the shorter side is round(side / crop_pct)) and cuts the centre, an odd pixel going to the right and
    bottom. An image longer than 20 times its shorter side loses its ends first, which the centre cut would
    take anyway: resizing them could take gigabytes.
    """
    resampling = RESAMPLING[preprocess.interpolation]
    size = (preprocess.width, preprocess.height)
    if preprocess.resize == "squash":
        return np.array(image.resize(size, resampling), dtype=np.uint8)
    if is_long(image.width, image.height, preprocess):
        longest = _longest(image.width, image.height, preprocess)
        image = _centre(image, (min(image.width, longest), min(image.height, longest)))
    resized = resized_size(image.width, image.height, preprocess)
    return np.array(_centre(image.resize(resized, resampling), size), dtype=np.uint8)


def exact_pixels(path: str, rules: Sequence[Preprocess], max_pixels: int) -> list[NDArray[np.uint8]]:
    """The pixels of one file by each rule, as training, export and prediction must have them: see `to_pixels`."""
    image = open_rgb(path, max_pixels=max_pixels)
    return [to_pixels(image, rule) for rule in rules]


def resized_size(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """(width, height) in pixels that a whole upright image is resized to, before the centre is cut."""
    size = (preprocess.width, preprocess.height)
    if preprocess.resize == "squash":
        return size
    cover = [round(side / preprocess.crop_pct) for side in size]
    scale = max(cover[0] / width, cover[1] / height)
    return max(size[0], round(width * scale)), max(size[1], round(height * scale))


def is_long(width: int, height: int, preprocess: Preprocess) -> bool:
    """Whether the image loses its ends before it is resized."""
    return preprocess.resize == "crop" and max(width, height) > _longest(width, height, preprocess)


def _longest(width: int, height: int, preprocess: Preprocess) -> int:
    size = (preprocess.width, preprocess.height)
    return _LONGEST * min(width, height) * max(1, -(-max(size) // min(size)))


def _centre(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def decode(
    uris: Sequence[str],
    preprocesses: Sequence[Preprocess],
    *,
    folder: Path,
    read: Reader = exact_pixels,
    max_pixels: int = MAX_PIXELS,
    workers: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Decode every image once and write its pixels for every distinct decode key.

    Works in threads: decoding and resizing free the interpreter. It is held for at most 10 % of an image's CPU time
    (3.3 ms, 500 px) and 1 % (90 ms, 4,000 px) where pixels are exact, 38 % (1.8 ms) and 10 % (11.9 ms) where they are
    for scores, so that about three threads pay at the least. A worker process would import torch first, for 5 s of
    CPU time, as much as 2,500 images of 500 px take: there are none.

    Returns:
        decode key -> file of uint8 [n, height, width, 3] in `folder`, row i from uris[i]; see `load_pixels`.

    Args:
        read: how a file becomes pixels.
        workers: decoding threads; 0 for one per core.
        on_progress: called with (done, total) images from the calling thread. When it raises, the work stops.

    Raises:
        UserError: a file that cannot be decoded, by name.
        OSError: `folder` cannot be written, or has not the space for all pixels (found before the first one).
    """
    rules = {rule.decode_key(): rule for rule in preprocesses}
    folder.mkdir(parents=True, exist_ok=True)
    parts = {key: folder / f".{key}.partial" for key in rules}
    try:
        arrays = {
            key: _create(parts[key], (len(uris), rule.height, rule.width, 3)) for key, rule in rules.items()
        }
        _fill(
            arrays,
            list(rules.values()),
            uris,
            read,
            max_pixels,
            workers,
            on_progress or (lambda done, total: None),
        )
        for array in arrays.values():
            array.flush()
        finished = {key: folder / f"{key}.npy" for key in rules}
        for key, path in finished.items():
            parts[key].replace(path)
        return finished
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _create(path: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # Writing to a hole of a full disk through a mapping kills the process: take the space now.
        handle = os.open(path, os.O_RDWR)
        try:
            os.posix_fallocate(handle, 0, os.fstat(handle).st_size)
        finally:
            os.close(handle)
    return array


def _fill(
    arrays: dict[str, np.memmap[tuple[int, ...], np.dtype[np.uint8]]],
    rules: list[Preprocess],
    uris: Sequence[str],
    read: Reader,
    max_pixels: int,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> None:
    stop = threading.Event()
    step = 16

    def fill(start: int) -> int:
        stretch = range(start, min(start + step, len(uris)))
        for index in stretch:
            if stop.is_set():
                break
            try:
                found = read(uris[index], rules, max_pixels)
            except BadImage as error:
                raise UserError(
                    f"the image passed the check and cannot be decoded now: {error.reason}",
                    where=uris[index],
                    hint="the file has changed; run the same command again",
                ) from None
            for array, pixels in zip(arrays.values(), found, strict=True):
                array[index] = pixels
        return len(stretch)

    done = 0
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="decode") as pool:
        futures = [pool.submit(fill, start) for start in range(0, len(uris), step)]
        try:
            for future in as_completed(futures):
                done += future.result()
                on_progress(done, len(uris))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def load_pixels(path: str | Path) -> NDArray[np.uint8]:
    """The pixels that `decode` wrote, uint8 [n, height, width, 3], mapped read-only into memory."""
    pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return pixels

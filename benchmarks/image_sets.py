"""The labelled photographs and digits that selection is measured on, as folders of one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["DIGIT_IMAGES", "image_sets", "shared_data", "write_digits"]

PHOTOGRAPHS = {
    "pacs-photo": "pacs/photo",
    "pacs-art": "pacs/art_painting",
    "pacs-sketch": "pacs/sketch",
    "hymenoptera": "hymenoptera",
    "flowers5": "flowers5",
    "caltech101-20": "caltech101_20",
}
DIGITS = ("mnist", "usps")
DIGIT_IMAGES = {"train": 25, "test": 50}
"""Images per digit: the whole sets would take a day of fine-tuning and be easy for every network."""


def shared_data() -> Path:
    """The folder of shared data; the benchmark ends with a message where it is missing."""
    folder = Path(os.environ.get("TLCORE_SHARED", "../shared")).resolve() / "data"
    if not folder.is_dir():
        raise SystemExit(f"no shared data at {folder}; set TLCORE_SHARED to the folder that holds data/")
    return folder


def image_sets(data: Path, made: Path, images_per_digit: Mapping[str, int] = DIGIT_IMAGES) -> dict[str, Path]:
    """Folder by name of every labelled image set under `data`; digits are written once as PNG files under `made`."""
    sets = {name: data / place for name, place in PHOTOGRAPHS.items()}
    for name in DIGITS:
        sets[name] = made / name
        if not (made / name / "done").is_file():
            write_digits(data / name / f"{name}.npz", made / name, images_per_digit)
    return sets


def write_digits(archive: Path, folder: Path, images_per_digit: Mapping[str, int] = DIGIT_IMAGES) -> None:
    """The first images of each digit of an archive as PNG files, by split."""
    with np.load(archive, allow_pickle=False) as file:
        for split, per_class in images_per_digit.items():
            images, labels = file[f"x_{split}"], file[f"y_{split}"]
            for digit in range(10):
                place = folder / split / str(digit)
                place.mkdir(parents=True, exist_ok=True)
                for number in np.flatnonzero(labels == digit)[:per_class]:
                    Image.fromarray(images[number]).save(place / f"{number:05}.png")
    (folder / "done").write_text("complete\n", encoding="utf-8")

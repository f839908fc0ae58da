"""Scikit-learn's handwritten digits as a folder of PNG files: the demo's real data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, DataSource
from tlcore.values import Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKER = ".digits.json"
"""Written last into the folder: which options the files were made with."""


class Digits(DataSource):
    """1,797 scans of 8 x 8 pixels and 17 grey levels, written once as PNG files, then read as any folder.

    Per digit, `per_class` scans drawn with `seed` are for training; of the others the first
    round((1 - test_share) * rest) are for validation and the remainder for test.
    """

    card: ClassVar[Card] = Card(
        name="digits",
        summary="1,797 handwritten digits from scikit-learn, written once as a folder of PNG files",
        reference="Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits (UCI, doi:10.24432/C50P49), test part",
    )

    path: str = Field(min_length=1, description="the folder to write to, and to read when it is there")
    per_class: int = Field(10, ge=1, le=150, description="labelled training scans per digit")
    test_share: float = Field(
        0.5, gt=0, lt=1, description="share of the other scans that is for test, not validation"
    )
    size: int = Field(32, ge=8, le=256, description="pixels: height and width of the files")
    seed: int = Field(0, ge=0, description="draws the training scans")

    def load(self) -> Dataset:
        from tlcore.data.folder import read_folder

        folder = Path(self.path).expanduser().absolute()
        self._write_once(folder)
        return read_folder(str(folder))

    def _write_once(self, folder: Path) -> None:
        """Write under another name and rename: the folder is complete or not there, whoever else is writing."""
        from filelock import FileLock

        options = self.model_dump(exclude={"path"})
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if _is_written(folder, options):
                    return
                partial = folder.parent / f".{folder.name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                self._write(partial)
                (partial / MARKER).write_text(json.dumps(options), encoding="utf-8")
                partial.replace(folder)
        except OSError as error:
            raise UserError(
                f"the digits cannot be written: {error.strerror or error}",
                where=str(folder),
                hint="name a folder that you may write",
            ) from None

    def _write(self, folder: Path) -> None:
        from PIL import Image
        from sklearn.datasets import load_digits

        scans = load_digits()
        for digit in range(10):
            numbers = np.flatnonzero(scans.target == digit)
            for split, chosen in self._draw(numbers, digit).items():
                place = folder / split / str(digit)
                place.mkdir(parents=True)
                for number in chosen:
                    # 17 grey levels, 0 … 16, onto 0 … 255.
                    grey = np.rint(scans.images[number] * (255 / 16)).astype(np.uint8)
                    image = Image.fromarray(grey).resize((self.size, self.size), Image.Resampling.BICUBIC)
                    image.save(place / f"{number:04d}.png")

    def _draw(self, numbers: NDArray[np.intp], digit: int) -> dict[str, NDArray[np.intp]]:
        order = np.random.default_rng([self.seed, digit]).permutation(numbers)
        train, rest = order[: self.per_class], order[self.per_class :]
        cut = round((1 - self.test_share) * len(rest))
        return {"train": train, "val": rest[:cut], "test": rest[cut:]}


def _is_written(folder: Path, options: dict[str, object]) -> bool:
    """Whether the digits lie there, written with these options.

    Raises:
        UserError: something else lies there; it is not overwritten.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        written = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            "something else lies here already, and it is not overwritten",
            where=str(folder),
            hint="name a new folder",
        ) from None
    if written != options:
        raise UserError(
            f"these digits were written with other options: {written}, not {options}",
            where=str(folder),
            hint="name a new folder, or remove this one",
        )
    return True


@hookimpl
def tlcore_data_sources() -> list[type[DataSource]]:
    return [Digits]

"""What enters the first trained layer, of all images and several augmented views, kept in files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from tlcore.errors import PluginError, UserError
from tlcore.features.normalisation import normalise
from tlcore.training.augment import augment
from tlcore.training.mixing import randomly_augmented
from tlcore.training.plan import Augment
from tlcore.training.split import Frozen
from tlcore.training.streams import StreamData, draw_seed
from tlcore.values import Preprocess

__all__ = ["ActivationStore"]

_HALF_ERROR = 1e-3
_HALF_RANGE = 65504 / 16
"""A sixteenth of float16's largest number: images that were not probed may have larger values."""
_PROBE = 8


class ActivationStore:
    """The frozen part's output on a stream of images, one file per view.

    View 0 holds the images themselves, view v > 0 each image augmented from the seed (seed, phase, v, image), image
    being its row in the pixels: so it depends neither on the batch nor on what else is in the stream. A view is worked
    out when it is first asked for, or by `prepare`. A finished file is found again by the same process or another;
    an unfinished one is begun anew.

    Numbers are kept as float16 where that is within 1e-3 of the norm of each of the first images and well inside
    its range, else as float32.

    Attributes:
        views: how many views there are: as many as were asked for and fit, but one in any case.
        values: numbers per image.
    """

    def __init__(
        self,
        folder: Path,
        frozen: Frozen,
        stream: StreamData,
        preprocess: Preprocess,
        *,
        kind: Augment,
        views: int,
        max_bytes: int,
        seed: int,
        phase: int | str,
        randaugment: str | None = None,
        key: str = "",
        batch_size: int = 64,
        device: torch.device | str = "cpu",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Tries the frozen part on a few images.

        Args:
            folder: made if it is missing. key: what else the activations depend on, such as where the pixels come from;
                the weights, the rows, the preprocessing and all arguments here are looked at already.
            on_progress: called with images done and images in all views.

        Raises:
            UserError: no image, or the disk has no room for one view.
            PluginError: the activations are not finite.
        """
        if not len(stream):
            raise UserError("there is no image to keep activations of")
        self._folder, self._frozen, self._stream, self._preprocess = folder, frozen, stream, preprocess
        self._kind, self._seed, self._phase, self._policy = kind, seed, phase, randaugment
        self._batch_size, self._device, self._on_progress = batch_size, torch.device(device), on_progress
        self._maps: dict[int, NDArray[Any]] = {}
        probe = self._computed(np.arange(min(_PROBE, len(stream))), 0)
        # Channels last in memory stays so in the file: rows come back in the order that convolutions want.
        self._channels_last = probe.ndim == 4 and not probe.is_contiguous() and probe.stride(1) == 1
        rows = self._rows(probe)
        self._shape = rows.shape[1:]
        self._dtype: np.dtype[Any] = np.dtype(np.float16 if _fits_half(rows) else np.float32)
        self.values = int(np.prod(self._shape))
        self._name = f"activations-{self._digest(key)}"
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{self._name}-*"):
            left.unlink(missing_ok=True)
        size = len(stream) * self.values * self._dtype.itemsize
        room = shutil.disk_usage(folder).free + sum(
            file.stat().st_size for file in folder.glob(f"{self._name}-*")
        )
        if size > room:
            raise UserError(
                f"activations of {len(stream)} images take {size / 1e9:.1f} GB and the disk has {room / 1e9:.1f} GB",
                where=str(folder),
                hint="train fewer stages, or all of them from images",
            )
        self.views = (
            1
            if kind == "none" and randaugment is None
            else max(1, min(views, max_bytes // size, room // size))
        )

    def prepare(self, view: int) -> None:
        """Work out a view, if it is not there yet.

        Raises:
            UserError: the disk is full.
            PluginError: the activations are not finite, or there is no such view.
        """
        if view in self._maps:
            return
        if not 0 <= view < self.views:
            raise PluginError(f"there is no view {view} of the activations; there are {self.views}")
        path = self._folder / f"{self._name}-{view}.npy"
        if not self._whole(path) and not self._write(path, view, self._dtype):
            self._write(path, view, np.dtype(np.float32))  # an image that was not probed left float16's range
        self._maps[view] = np.asarray(np.load(path, mmap_mode="r"))

    def batch(self, index: NDArray[np.int64], view: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the frozen part makes of the stream's images at these positions, on the device."""
        self.prepare(view)
        rows = torch.from_numpy(self._maps[view][index]).to(self._device, dtype)
        return rows.permute(0, 3, 1, 2) if self._channels_last else rows

    def remove(self) -> None:
        """Delete the files of all views."""
        self._maps.clear()
        for path in [*self._folder.glob(f"{self._name}-*"), *self._folder.glob(f".{self._name}-*")]:
            path.unlink(missing_ok=True)

    def _computed(self, index: NDArray[np.int64], view: int) -> Tensor:
        rows = self._stream.rows[index]
        images = np.ascontiguousarray(self._stream.pixels[rows])
        pixels = torch.from_numpy(images)
        if view:
            pixels = torch.cat(
                [self._augmented(images[k : k + 1], view, int(row)) for k, row in enumerate(rows)]
            )
        values = self._frozen(normalise(pixels, self._preprocess).to(self._device)).float()
        if not bool(torch.isfinite(values).all()):
            where = [int(row) for row in rows[~torch.isfinite(values.flatten(1)).all(1).cpu().numpy()]]
            raise PluginError(
                f"the frozen layers put out numbers that are not finite, first for image {where[0]}"
            )
        return values

    def _augmented(self, image: NDArray[np.uint8], view: int, row: int) -> Tensor:
        """One image [1, H, W, 3] by itself, so that its draws are its own."""
        seed = draw_seed(self._seed, self._phase, "activations", view, row)
        if self._policy is not None:
            image = randomly_augmented(image, self._policy, draw_seed(seed, "policy"))
        return augment(torch.from_numpy(image), self._kind, torch.Generator().manual_seed(seed))

    def _rows(self, values: Tensor) -> NDArray[np.float32]:
        ordered = values.permute(0, 2, 3, 1) if self._channels_last else values
        return np.ascontiguousarray(ordered.cpu().numpy())

    def _write(self, path: Path, view: int, dtype: np.dtype[Any]) -> bool:
        """Whether the numbers fit. Plain writes, not a writable map: there a full disk would kill the process."""
        count = len(self._stream)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with part.open("wb") as file:
                header = {
                    "descr": npy.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (count, *self._shape),
                }
                npy.write_array_header_1_0(file, header)
                for start in range(0, count, self._batch_size):
                    index = np.arange(start, min(start + self._batch_size, count))
                    rows = self._rows(self._computed(index, view))
                    if dtype == np.float16 and np.abs(rows).max() > np.finfo(np.float16).max:
                        return False
                    file.write(rows.astype(dtype).tobytes())
                    self._on_progress(view * count + int(index[-1]) + 1, self.views * count)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise UserError(
                f"activations cannot be written: {error.strerror}",
                where=str(path.parent),
                hint="free disk space, or train from images",
            ) from None
        finally:
            part.unlink(missing_ok=True)
        return True

    def _whole(self, path: Path) -> bool:
        """Whether the file is there and is what `_write` leaves."""
        try:
            found = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return False
        return found.shape == (len(self._stream), *self._shape) and found.dtype in (np.float16, np.float32)

    def _digest(self, key: str) -> str:
        """Of all that the numbers depend on; 20 hexadecimal digits."""
        made = hashlib.sha256()
        plain = [
            key, self._preprocess.model_dump(mode="json"), self._kind, self._policy, self._seed, self._phase, self._shape,
            str(self._dtype), self._channels_last, self._stream.pixels.shape,
        ]  # fmt: skip
        made.update(json.dumps(plain).encode())
        made.update(np.ascontiguousarray(self._stream.rows).tobytes())
        for name, value in sorted(self._frozen.layers.state_dict().items()):
            made.update(name.encode())
            made.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return made.hexdigest()[:20]


def _fits_half(rows: NDArray[np.float32]) -> bool:
    """Whether float16 keeps each row within 1e-3 of its norm."""
    if np.abs(rows).max() > _HALF_RANGE:
        return False
    flat = rows.reshape(len(rows), -1)
    lost = np.linalg.norm(flat - flat.astype(np.float16).astype(np.float32), axis=1)
    return bool((lost <= _HALF_ERROR * np.linalg.norm(flat, axis=1)).all())

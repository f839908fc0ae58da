"""The demo's source models: small timm networks, trained here on images that are made here.

They differ in architecture and in source task, so that some transfer to handwritten digits and some do not; one
is a random initialisation, the control that any score has to beat. About a minute on one core; then cached.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tlcore.demo import glyphs, patterns
from tlcore.demo.glyphs import DIGITS, LETTERS, SIDE
from tlcore.demo.publish import published
from tlcore.errors import UserError
from tlcore.models.local_index import INDEX

__all__ = ["ZOO", "Member", "build_zoo", "write_rendered_digits"]

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]

MEAN, STD = 0.5, 0.5
BATCH = 64
REPORT = "zoo.json"
"""Source-task accuracy and seconds of every member, beside the index."""


@dataclass(frozen=True)
class Member:
    """One network of the zoo.

    Attributes:
        task: source task; "" leaves the random initialisation.
        steps: optimiser steps of 64 images.
        rate: highest learning rate.
    """

    name: str
    architecture: str
    task: str
    steps: int = 400
    rate: float = 3e-3


ZOO = (
    Member("digits-resnet", "test_resnet", "digits", steps=300),
    Member("digits-byobnet", "test_byobnet", "digits"),
    Member("letters-resnet", "test_resnet", "letters"),
    Member("letters-mambaout", "test_mambaout", "letters"),
    Member("shapes-byobnet", "test_byobnet", "shapes"),
    Member("textures-efficientnet", "test_efficientnet", "textures"),
    Member("random-resnet", "test_resnet", ""),
)
"""What `build_zoo` trains."""

TASKS: dict[str, tuple[str, Callable[[int, int], Images], int, int]] = {
    "digits": ("rendered digits, 22 fonts", lambda n, seed: glyphs.glyphs(DIGITS, n, seed=seed), 10, 600),
    "letters": ("rendered letters, 22 fonts", lambda n, seed: glyphs.glyphs(LETTERS, n, seed=seed), 26, 300),
    "shapes": ("drawn shapes", lambda n, seed: patterns.shapes(n, seed=seed), len(patterns.SHAPES), 500),
    "textures": (
        "procedural textures",
        lambda n, seed: patterns.textures(n, seed=seed),
        len(patterns.TEXTURES),
        500,
    ),
}
"""Per source task: what it is, how its images are made (images per class, seed), classes, training images per class."""

HELD_OUT = 60
"""Images per class that the source accuracy is measured on."""


def build_zoo(
    folder: Path,
    *,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
    members: tuple[Member, ...] = ZOO,
) -> Path:
    """Train `members` once and write them in the local index format, so that `local:FOLDER` reads them.

    A finished zoo of the same recipe (members, seed, this code, timm's version) is used again; an interrupted
    one goes on after the last finished network. torch's global random state and thread count are left as they were.

    Training uses one thread: networks this small gain a quarter from a second one on an idle machine and lose a
    factor of ten where another program holds that core, and so the weights do not depend on the number of cores.

    Args:
        on_progress: called with one line per network.

    Returns:
        `folder`, with index.json, one safetensors file per member, and zoo.json.

    Raises:
        UserError: the folder holds something else, or cannot be written.
        RetryableError: the disk is full.
    """
    tell = on_progress or (lambda line: None)
    fingerprint = _fingerprint([asdict(member) for member in members], seed, timm.__version__)
    with _one_thread():
        reused = published(folder, fingerprint, lambda partial: _fill(partial, members, seed, tell))
    if reused:
        tell(f"zoo: {len(members)} networks used again from {folder}")
    for member in members:
        _note(folder, member).unlink(missing_ok=True)
    return folder


def write_rendered_digits(folder: Path, per_class: int, seed: int) -> Path:
    """Rendered digits as grayscale PNG files, train/val/test/DIGIT/NNNN.png, 32 x 32: a labelled source domain.

    Args:
        per_class: training images per digit; val and test get a quarter of that, at least 2.

    Raises:
        UserError: the folder holds something else, or cannot be written.
        RetryableError: the disk is full.
    """
    from PIL import Image

    if per_class < 1:
        raise UserError(f"per_class = {per_class} must be at least 1", where="rendered digits")

    def fill(partial: Path) -> None:
        for number, split in enumerate(("train", "val", "test")):
            count = per_class if split == "train" else max(2, per_class // 4)
            images, labels = glyphs.glyphs(DIGITS, count, seed=_seed(seed, "rendered", number))
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = partial / split / DIGITS[label] / f"{index % count:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)

    published(folder, _fingerprint("rendered digits", per_class, seed), fill)
    return folder


def _fingerprint(*settings: object) -> str:
    """Of the settings and of the code that draws and trains: either may change what is written."""
    code = [glyphs, patterns, sys.modules[__name__]]
    text = json.dumps([settings, [inspect.getsource(module) for module in code]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _seed(seed: int, *parts: object) -> int:
    """A seed of its own for every purpose, stable across processes."""
    digest = hashlib.sha256(json.dumps([seed, *parts]).encode()).digest()
    return int.from_bytes(digest[:6])


def _fill(folder: Path, members: tuple[Member, ...], seed: int, tell: Callable[[str], None]) -> None:
    drawn: dict[str, tuple[Images, Images]] = {}
    for number, member in enumerate(members, start=1):
        done = _note(folder, member)
        if done.is_file():
            continue
        if member.task and member.task not in drawn:
            drawn[member.task] = _draw(member.task, seed)
        started = time.process_time()
        network, accuracy = _trained(member, drawn.get(member.task), _seed(seed, member.name))
        seconds = time.process_time() - started
        _save(network, folder / f"{member.name}.safetensors", member.architecture)
        report = {
            "task": member.task or "none",
            "source_accuracy": accuracy,
            "cpu_seconds": round(seconds, 1),
        }
        _write(done, {"entry": _entry(member), "report": report})
        reached = f", source accuracy {accuracy:.3f}" if accuracy is not None else ""
        tell(f"zoo {number}/{len(members)}: {member.name}{reached}, {seconds:.0f} CPU s")
    notes = {member.name: json.loads(_note(folder, member).read_text()) for member in members}
    _write(folder / REPORT, {name: note["report"] for name, note in notes.items()})
    _write(folder / INDEX, {name: note["entry"] for name, note in notes.items()})


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _note(folder: Path, member: Member) -> Path:
    """Written when a member is finished; gone when the zoo is."""
    return folder / f".{member.name}.json"


def _draw(task: str, seed: int) -> tuple[Images, Images]:
    _, draw, _, per_class = TASKS[task]
    return draw(per_class, _seed(seed, task, "train")), draw(HELD_OUT, _seed(seed, task, "held out"))


def _entry(member: Member) -> dict[str, Any]:
    task = TASKS.get(member.task)
    return {
        "file": f"{member.name}.safetensors",
        "architecture": member.architecture,
        "kwargs": {},
        "num_classes": task[2] if task else 0,
        "input_size": [3, SIDE, SIDE],
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "interpolation": "bilinear",
        "pretrained_on": task[0] if task else "nothing (random initialisation)",
        "modality": "image",
        "known_to_timm": True,
        "licence": "Apache-2.0",
        "crop_pct": 1.0,
        "resize": "squash",
    }


def _trained(
    member: Member, images: tuple[Images, Images] | None, seed: int
) -> tuple[nn.Module, float | None]:
    """The network in eval mode, and its accuracy on held-out images of its source task (None for the control)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if images is None:
            return timm.create_model(member.architecture, pretrained=False, num_classes=0).eval(), None
        (train, labels), (held_out, truth) = images
        network: nn.Module = timm.create_model(
            member.architecture, pretrained=False, num_classes=TASKS[member.task][2]
        )
        network = network.to(memory_format=torch.channels_last)
        _fit(network, _pixels(train), torch.from_numpy(labels), member, torch.Generator().manual_seed(seed))
        network.eval()
        with torch.inference_mode():
            predicted = torch.cat([network(batch).argmax(1) for batch in torch.split(_pixels(held_out), 256)])
        return network, float((predicted == torch.from_numpy(truth)).float().mean())


def _fit(network: nn.Module, pixels: Tensor, labels: Tensor, member: Member, rng: torch.Generator) -> None:
    """AdamW, one cycle of the learning rate (Smith & Topin 2019), label smoothing 0.1."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), member.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, member.rate, total_steps=member.steps)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(member.steps):
        if len(order) < BATCH:
            order = torch.randperm(len(pixels), generator=rng)
        batch, order = order[:BATCH], order[BATCH:]
        optimiser.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(pixels[batch]), labels[batch], label_smoothing=0.1)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, 32, 32] as float32 [n, 3, 32, 32], normalised, channels last."""
    gray = (torch.from_numpy(images)[:, None].float() / 255 - MEAN) / STD
    return gray.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def _save(network: nn.Module, path: Path, architecture: str) -> None:
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    partial = path.with_suffix(".partial")
    # Bytes first: safetensors' own writer hides the system's error number, which tells a full disk from others.
    partial.write_bytes(save(state, metadata={"architecture": architecture}))
    partial.replace(path)


def _write(path: Path, content: object) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)

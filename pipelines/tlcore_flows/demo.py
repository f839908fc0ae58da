"""The demo: the main job on real handwritten digits, with source models that are trained here.

Two runs. The first transfers: ten labelled scans a class, a zoo of small networks that learned rendered
digits, letters, shapes, textures or nothing; every one of them is fine-tuned as well, so that a reader sees
whether the ranking was right. The second adapts: rendered digits are the labelled source domain, the scans
the unlabelled target.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tlcore.config import RunConfig, parse_config
from tlcore.values import Json

__all__ = ["adaptation_config", "prepare", "transfer_config"]

SEED = 0
RENDERED_PER_CLASS = 40
"""Labelled rendered digits a class: the source domain of the second run."""
UNLABELLED_PER_CLASS = 60
"""Handwritten scans a class whose labels the second run never sees."""


SCRATCH_EPOCHS = 60


def prepare(folder: Path, tell: Callable[[str], None]) -> None:
    """Train the zoo and render the digits, where that has not been done.

    Raises:
        UserError: the folder cannot be written.
        RetryableError: the disk is full.
    """
    from tlcore.demo.zoo import build_zoo, write_rendered_digits

    build_zoo(folder / "zoo", seed=SEED, on_progress=tell)
    write_rendered_digits(folder / "rendered", RENDERED_PER_CLASS, SEED)


def transfer_config(folder: Path) -> RunConfig:
    """Ten labelled scans a class; the others are for validation and test."""
    return _config(
        folder,
        name="digits",
        data={"source": {"name": "digits", "path": str(folder / "digits"), "per_class": 10}},
        selection={"verify": True},
    )


def adaptation_config(folder: Path) -> RunConfig:
    """From rendered digits to handwritten ones without a single handwritten label."""
    target = {"name": "digits", "path": str(folder / "unlabelled"), "per_class": UNLABELLED_PER_CLASS}
    return _config(
        folder,
        name="rendered to handwritten",
        data={"source": str(folder / "rendered"), "target": target},
        adapt={"try": ["mcc", "shot"]},
    )


def _config(folder: Path, **parts: Json) -> RunConfig:
    models = [{"name": "local", "spec": str(folder / "zoo")}]
    # Networks of 32 x 32 pixels have too little to share between threads: one is as fast, and steadier.
    # They are cheap as well: from scratch they may learn for as long as it helps.
    scratch = {"scratch": {"name": "full", "epochs": SCRATCH_EPOCHS}}
    made = {"models": models, "seed": SEED, "threads": 1, "evaluation": scratch, **parts}
    return parse_config(made, where="tlcore demo")

"""The whole chain on tiny images, stage by stage, without Prefect."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from tlcore.registry import Registry
from tlcore.stages.base import Choice, StageJob, StageResult, run_stage
from tlcore.stages.values import CandidateList, DecodedImages, Trained
from tlcore.store import Store
from tlcore.values import Candidate, Ranked, Ref

CLASSES = ("ant", "bee", "cat")


def write_images(
    root: Path, per_class: int, *, seed: int, offset: int = 0, classes: tuple[str, ...] = CLASSES
) -> Path:
    """Noise whose mean brightness is the class; `offset` moves a whole domain."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            level = 50 + 70 * index + offset
            pixels = np.clip(rng.normal(level, 25, (40, 36, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}_{number:02}.png")
    return root


def write_zoo(
    folder: Path,
    architectures: tuple[str, ...] = ("test_resnet", "test_efficientnet"),
    *,
    first_seed: int = 0,
) -> Path:
    """Randomly initialised networks in the local index format."""
    folder.mkdir(parents=True)
    index: dict[str, Any] = {}
    for number, architecture in enumerate(architectures, first_seed):
        torch.manual_seed(number)
        network = timm.create_model(architecture, num_classes=5)
        save_file(
            {name: value.clone() for name, value in network.state_dict().items()},
            folder / f"{architecture}.safetensors",
        )
        index[architecture] = {
            "file": f"{architecture}.safetensors", "architecture": architecture, "kwargs": {}, "num_classes": 5,
            "input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear",
            "pretrained_on": "nothing", "modality": "image", "known_to_timm": True, "licence": "Apache-2.0",
        }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@dataclass
class Chain:
    """Runs stages on one store and remembers their results by label."""

    store: Store
    registry: Registry
    done: dict[str, StageResult] = field(default_factory=dict)

    def __call__(
        self, stage: str, subject: str = "", *, inputs: Mapping[str, Ref] | None = None, options: dict[str, Any] | None = None,
        strategies: Mapping[str, tuple[str, str, dict[str, Any]]] | None = None, seed: int = 0,
    ) -> Ref:  # fmt: skip
        job = StageJob(
            stage=stage, subject=subject, inputs={key: (ref,) for key, ref in (inputs or {}).items()}, options=options or {},
            strategies={role: Choice(kind=k, name=n, options=o) for role, (k, n, o) in (strategies or {}).items()}, seed=seed,
        )  # fmt: skip
        result = run_stage(self.store, self.registry, job)
        self.done[job.label] = result
        return result.ref

    def data(self, folder: Path, target: Path | None = None) -> Ref:
        kind = "manifest" if folder.is_file() else "image-folder"
        sources = {"source": ("data-source", kind, {"path": str(folder)})}
        if target is not None:
            folder_options = {"path": str(target), "labelled": False}
            sources["target"] = (
                ("data-source", "manifest", {"path": str(target)})
                if target.is_file()
                else ("data-source", "image-folder", folder_options)
            )
        loaded = self("load", strategies=sources)
        limits = {"max_pixels": 10_000_000, "max_bad_share": 0.01, "validation": 0.2, "test": 0.2}
        return self(
            "check",
            inputs={"data": loaded},
            options=limits,
            strategies={"check": ("data-check", "image-table", {})},
        )

    def candidates(self, zoo: Path) -> tuple[Candidate, ...]:
        ref = self("candidates", strategies={"model-0": ("model-source", "local", {"spec": str(zoo)})})
        return self.store.read(ref, CandidateList).entries

    def pixels(self, data: Ref, candidate: Candidate) -> Ref:
        return self.decoded(data, candidate)[0]

    def decoded(self, data: Ref, *candidates: Candidate) -> list[Ref]:
        rules = [c.preprocess.decoding() for c in candidates if c.preprocess is not None]
        options = {"rules": [rule.model_dump(mode="json") for rule in rules], "max_pixels": 10_000_000}
        pixels = self.store.read(self("decode", inputs={"data": data}, options=options), DecodedImages).pixels
        return [pixels[rule.decode_key()] for rule in rules]

    def train(
        self,
        data: Ref,
        pixels: Ref,
        candidate: Candidate,
        tuner: str,
        options: dict[str, Any] | None = None,
        **parts: Any,
    ) -> Ref:
        return self(
            "train", f"{candidate.name}-{tuner}", inputs={"data": data, "pixels": pixels, **parts},
            options={"candidate": candidate.model_dump(mode="json"), "pretrained": True},
            strategies={"source": source(candidate), "tuner": ("tuner", tuner, options or {})},
        )  # fmt: skip

    def adapt(
        self, data: Ref, pixels: Ref, model: Ref, adapter: str, options: dict[str, Any] | None = None, *,
        label_sets: str = "closed",
        validators: Sequence[str] = ("im", "bnm"), seed: int = 0,
    ) -> Ref:  # fmt: skip
        candidate = self.store.read(model, Trained).checkpoint.candidate
        places = {"data": data, "pixels": pixels, "model": model}
        places["embedded"] = self("embed", inputs=places, strategies={"source": source(candidate)})
        own = {
            "source": source(candidate),
            "adapter": ("adapter", adapter, options or {"steps": 4, "checkpoints": 2}),
        }
        roles = {f"validator-{i}": ("validator", name, {}) for i, name in enumerate(validators)}
        return self(
            "adapt", adapter, inputs=places, seed=seed,
            options={"source_floor": 0.05, "max_images": 200, "label_sets": label_sets, "gmacs": 0.001},
            strategies={**own, **roles},
        )  # fmt: skip


class FeatureBench:
    """One data set, one candidate and its pixels: everything that the features stage asks for."""

    def __init__(self, chain: Chain, tmp_path: Path, *, per_class: int, seed: int) -> None:
        self.chain = chain
        self.data = chain.data(write_images(tmp_path / "photos", per_class, seed=seed))
        self.candidate: Candidate = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))[0]
        self.pixels = chain.pixels(self.data, self.candidate)

    def features(self, **options: object) -> Ref:
        return self.chain(
            "features",
            inputs={"data": self.data, "pixels": self.pixels},
            options={"candidate": self.candidate.recipe(), "max_images": 5000, **options},
            strategies={"source": source(self.candidate)},
        )

    def merge(self, parts: Sequence[Ref]) -> Ref:
        job = StageJob(stage="merge", inputs={"parts": tuple(parts)})
        return run_stage(self.chain.store, self.chain.registry, job).ref

    def score(self, features: Ref, *scorers: str, replicates: int = 0) -> Ranked:
        ref = self.chain(
            "score",
            inputs={"data": self.data, "features": features},
            options={"candidate": self.candidate.model_dump(mode="json"), "replicates": replicates},
            strategies={name: ("scorer", name, {}) for name in scorers},
        )
        return self.chain.store.read(ref, Ranked)


def source(candidate: Candidate) -> tuple[str, str, dict[str, Any]]:
    return "model-source", candidate.source["name"], candidate.source["options"]


FAULTS = (
    "one class",
    "a class with one image",
    "empty folder",
    "bad files",
    "leaves the root",
    "missing file",
)


def make_fault(photos: Path, name: str) -> list[str]:
    """Break the folder in one way; what the message must name."""
    if name == "one class":
        for folder in ("bee", "cat"):
            shutil.rmtree(photos / folder)
        return ["class"]
    if name == "a class with one image":
        for path in sorted((photos / "bee").iterdir())[1:]:
            path.unlink()
        return ["bee", "image"]
    if name == "empty folder":
        shutil.rmtree(photos)
        photos.mkdir()
        return ["photos"]
    if name == "bad files":
        (photos / "ant" / "text.jpg").write_text("hello")
        (photos / "ant" / "zero.png").write_bytes(b"")
        cut = next((photos / "cat").iterdir()).read_bytes()
        (photos / "cat" / "cut.png").write_bytes(cut[: len(cut) // 2])
        return ["text.jpg", "zero.png", "cut.png", "--max-bad-share"]
    with (photos / "table.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label"])
        writer.writerow(["ant/ant_00.png", "ant"])
        writer.writerow(
            ["../../outside.png", "ant"] if name == "leaves the root" else ["ant/gone.png", "ant"]
        )
    return ["outside.png"] if name == "leaves the root" else ["gone.png"]


@pytest.fixture
def chain(tmp_path: Path, plugin_index: Path) -> Chain:
    torch.set_num_threads(1)
    store = Store.open(tmp_path / "store")
    return Chain(store, Registry.discover(cache_folder=plugin_index))

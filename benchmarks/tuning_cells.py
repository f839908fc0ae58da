"""What benchmarks/tuning.py does in one cell: a head on cached features, or the network through the stages of the main job."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.chain import Chain
from benchmarks.image_sets import image_sets
from benchmarks.process_memory import Peak, peak_memory
from benchmarks.tuning_heads import draw, fit_head
from benchmarks.tuning_rows import ALL, Cell, Spec

DIGITS = {"train": 100, "test": 100}
"""Images per digit: of all of them one linear probe would take minutes."""
TEACHER = "mobilenetv1_100"
"""Who teaches `distill`: fine-tuned with lp-ft."""


@dataclass(frozen=True)
class Images:
    """Features float32 [n, d] and labels int64 [n] of a set's labelled images outside its test split, and of those in it."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_features: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]


class Bench(Chain):
    """Image sets, candidates and cells on one store."""

    def __init__(self, store: Path, data: Path, *, threads: int = 1) -> None:
        super().__init__(store)
        self.made, self.threads = store / "made", threads
        self.warm: set[Spec] = set()
        self.weights = data / "weights"
        self.sets = image_sets(data, self.made / "digits", DIGITS)

    @functools.cached_property
    def candidates(self) -> dict[str, Any]:
        from tlcore.stages.values import CandidateList

        sources = [
            name for name in ("local", "narrow-mobilenets") if name in self.registry.names("model-source")
        ]
        strategies: Any = {
            f"model-{i}": ("model-source", name, {"spec": str(self.weights)})
            for i, name in enumerate(sources)
        }
        listed = self.stage("candidates", strategies=strategies)
        return {c.name: c for c in self.store.read(listed, CandidateList).entries if c.skipped is None}

    def candidate(self, name: str) -> Any:
        found = self.candidates.get(name)
        if found is None:
            known = ", ".join(sorted(self.candidates))
            raise SystemExit(
                f'no candidate named "{name}" among {known}; the narrow ones come with --plugin .venv/example_plugin '
                "(make .venv/example_plugin)"
            )
        return found

    def row(self, cell: Cell) -> dict[str, Any]:
        """The line of one cell."""
        return self._features_row(cell) if cell.part == "features" else self._network_row(cell)

    def images(self, set_name: str, candidate: str) -> Images:
        return _images(self, set_name, candidate)

    def checked(self, folder: Path) -> Any:
        source = ("data-source", "image-folder", {"path": str(folder)})
        data = self.stage("load", folder.name, strategies={"source": source})
        options = {"max_pixels": 100_000_000, "max_bad_share": 0.01, "validation": 0.15, "test": 0.2}
        check: Any = {"check": ("data-check", "image-table", {})}
        return self.stage("check", folder.name, inputs={"data": (data,)}, options=options, strategies=check)

    def inputs(self, data: Any, candidate: Any) -> dict[str, Any]:
        """Refs of the checked table, the pixels, and the features of the untouched network."""
        from tlcore.stages.values import DecodedImages

        rule = candidate.preprocess.decoding()
        options = {"rules": [rule.model_dump(mode="json")], "max_pixels": 100_000_000}
        decoded = self.stage("decode", inputs={"data": (data,)}, options=options, threads=self.threads)
        pixels = self.store.read(decoded, DecodedImages).pixels[rule.decode_key()]
        inputs = {"data": (data,), "pixels": (pixels,)}
        embedded = self.stage(
            "embed", candidate.name, inputs=inputs, threads=self.threads, options={"candidate": candidate.recipe()},
            strategies={"source": self.source(candidate)},
        )  # fmt: skip
        return {**inputs, "embedded": (embedded,)}

    def _features_row(self, cell: Cell) -> dict[str, Any]:
        from tlcore.stages.machine import settle

        images = self.images(cell.set, cell.candidate)
        settle(self.threads, "cpu")
        rows = draw(images.labels, cell.shots, cell.seed)
        tuner = self.registry.build("tuner", cell.spec.tuner, json.loads(cell.spec.options))
        if cell.spec not in self.warm:  # what it imports is not its cost
            self.warm.add(cell.spec)
            few = draw(images.labels, "2", 0)
            fit_head(tuner, images.features[few], images.labels[few], images.classes, 0)
        with peak_memory() as peak, _Clock() as clock:
            network, note = fit_head(
                tuner, images.features[rows], images.labels[rows], images.classes, cell.seed
            )
        from tlcore.training.predict import predict_features

        answers = predict_features(network, images.test_features)[1].argmax(1)
        return _row(
            cell, len(images.classes), len(rows), answers == images.test_labels, clock.seconds, clock.cpu, peak, note
        )  # fmt: skip

    def folder(self, cell: Cell) -> Path:
        """The set with `shots` training images a class and all its test images: hard links where that can be."""
        place = self.made / f"{cell.set}-{cell.shots}-{cell.seed}"
        if place.is_dir():
            return place
        part = Path(tempfile.mkdtemp(dir=self.made))
        root = self.sets[cell.set]
        for split in ("train", "test"):
            files = sorted(path for path in (root / split).glob("*/*") if path.is_file())
            names = sorted({path.parent.name for path in files})
            labels = np.array([names.index(path.parent.name) for path in files])
            kept = draw(labels, cell.shots if split == "train" else ALL, cell.seed)
            for number in kept:
                target = part / split / files[number].parent.name / files[number].name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(files[number], target)
                except OSError:  # another file system
                    shutil.copyfile(files[number], target)
        try:
            part.rename(place)
        except OSError:  # another process was first
            shutil.rmtree(part)
        return place

    def _network_row(self, cell: Cell) -> dict[str, Any]:
        from tlcore.stages.networks import load_predictions
        from tlcore.stages.tables import load_table, rows_of
        from tlcore.stages.values import CheckedData, Trained

        candidate = self.candidate(cell.candidate)
        data = self.checked(self.folder(cell))
        report = self.store.read(data, CheckedData).report
        inputs = self.inputs(data, candidate)
        teacher, taught = {}, 0.0
        options, note = {"validation": cell.validation, "precision": "auto"}, ""
        if "teacher" in self.registry.load("tuner", cell.spec.tuner).card.traits:
            # As the flow does: what a teacher has seen cannot validate what it taught.
            options["validation"] = "held-out"
            if cell.candidate == TEACHER:
                raise ValueError(f"{TEACHER} cannot teach itself")
            master = self.candidates[TEACHER]
            own = self.inputs(data, master)
            ref = self._train(cell, Spec("lp-ft"), master, own, options)
            taught = self.store.read(ref, Trained).seconds
            note = f"taught by {master.name} in {taught:.1f} s, which are counted"
            teacher = {"teacher": (ref,), "teacher-pixels": own["pixels"]}
        with peak_memory() as peak, _Clock() as clock:
            ref = self._train(cell, cell.spec, candidate, inputs, options, teacher)
        trained = self.store.read(ref, Trained)
        # A training that was found, or taken up where a kill had left it, has more seconds than this process saw.
        whole = clock.seconds >= 0.95 * trained.seconds
        table = load_table(self.store.folder(data), self.store.read(data, CheckedData))
        rows = rows_of(table, "test", labelled=True)
        answers = load_predictions(self.store.folder(ref), rows).argmax(1)
        notes = [
            note,
            trained.validated_on,
            f"epoch {trained.checkpoint.chosen_epoch}",
            *trained.checkpoint.notes,
        ]
        return _row(
            cell, len(table.classes), report.source_images("train"), answers == np.asarray(table.labels())[rows],
            taught + trained.seconds, taught + clock.cpu if whole else None, peak if whole else Peak(),
            "; ".join(filter(None, notes)),
        )  # fmt: skip

    def _train(
        self, cell: Cell, spec: Spec, candidate: Any, inputs: Mapping[str, Any], options: Mapping[str, Any],
        teacher: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        strategies = {
            "source": self.source(candidate), "tuner": ("tuner", spec.tuner, json.loads(spec.options)),
        }  # fmt: skip
        if teacher:
            inputs = {**inputs, **teacher}
            strategies["teacher-source"] = self.source(self.candidates[TEACHER])
        return self.stage(
            "train", f"{spec.label} on {cell.set}", inputs=inputs, seed=cell.seed, threads=self.threads,
            options={"candidate": candidate.recipe(), "pretrained": True, **options}, strategies=strategies,
        )  # fmt: skip


class _Clock:
    """Wall seconds and this process's seconds on the processor, all threads."""

    def __enter__(self) -> _Clock:
        self.wall, self.spent = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds, self.cpu = time.monotonic() - self.wall, time.process_time() - self.spent


@functools.lru_cache(maxsize=2)
def _images(bench: Bench, set_name: str, candidate_name: str) -> Images:
    from tlcore.stages.tables import load_table, rows_of
    from tlcore.stages.values import CheckedData

    candidate = bench.candidates[candidate_name]
    data = bench.checked(bench.sets[set_name])
    (embedded,) = bench.inputs(data, candidate)["embedded"]
    features = np.load(bench.store.folder(embedded) / "features.npy", mmap_mode="r")
    table = load_table(bench.store.folder(data), bench.store.read(data, CheckedData))
    labels = np.asarray(table.labels(), np.int64)
    # The table's order is that of the files' names, and so the same images are drawn as by `Bench.folder`.
    own = np.sort(np.concatenate([rows_of(table, split, labelled=True) for split in ("train", "val")]))
    test = rows_of(table, "test", labelled=True)
    return Images(
        np.asarray(features[own]), labels[own], np.asarray(features[test]), labels[test], table.classes
    )


def _row(
    cell: Cell, classes: int, train_images: int, right: NDArray[np.bool_], seconds: float, cpu: float | None, peak: Peak,
    notes: str,
) -> dict[str, Any]:  # fmt: skip
    def shown(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return {
        "part": cell.part, "set": cell.set, "candidate": cell.candidate, "shots": cell.shots, "seed": cell.seed,
        "tuner": cell.spec.tuner, "options": cell.spec.options, "validation": cell.validation, "classes": classes,
        "train_images": train_images, "test_images": len(right), "accuracy": f"{right.mean():.4f}",
        "seconds": shown(seconds, 3), "cpu_seconds": shown(cpu, 3), "peak_mb": shown(peak.mb, 0),
        "added_mb": shown(peak.added_mb, 1), "notes": " ".join(notes.split()),
    }  # fmt: skip

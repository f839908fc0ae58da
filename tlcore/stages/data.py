"""Stages from a place on disk to checked, split and decoded images."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from tlcore.data.checking import apply_report
from tlcore.data.images import Reader, decode, exact_pixels
from tlcore.data.label_findings import label_counts, place_images
from tlcore.data.schema import combine
from tlcore.data.splits import assign_splits
from tlcore.errors import UserError
from tlcore.protocols import CheckLimits, DataCheck, DataSource
from tlcore.registry import Registry
from tlcore.stages.base import Progress, StageContext, StageJob
from tlcore.stages.tables import ROWS, load_table, save_table, scoring_rows
from tlcore.stages.values import CheckedData, DecodedImages, LoadedData, PixelFiles
from tlcore.store import Store, Work, content_key
from tlcore.values import SOURCE, Dataset, Json, Preprocess, Problem

__all__ = ["check", "decode_images", "load"]


def load(
    store: Store, registry: Registry, job: StageJob, progress: Progress
) -> tuple[str, Callable[[Work], None]]:
    """Read the source, and the target where there is one, into one table. Strategies: source, target.

    Options: target_domain and new_classes, as `combine` takes them.
    """
    progress(0, 0, "reading the table")

    def read(role: str, where: str) -> DataSource:
        choice = job.strategies[role]
        return cast(DataSource, registry.build(choice.kind, choice.name, choice.options, where=where))

    source = read("source", "[data] source").load()
    target = read("target", "[data] target").load() if "target" in job.strategies else None
    dataset = combine(source, target, **job.options)
    fingerprint = dataset.fingerprint
    # Where the files lie is part of the address here: later stages read them.
    key = content_key(
        {
            "stage": "load",
            "name": dataset.name,
            "content": fingerprint,
            "uris": dataset.table["uri"].to_list(),
        }
    )

    def write(work: Work) -> None:
        save_table(work.folder, dataset)
        work.write(
            LoadedData(
                name=dataset.name,
                classes=dataset.classes,
                rows=len(dataset.table),
                fingerprint=fingerprint,
                task=dataset.task,
            )
        )

    return key, write


def check(context: StageContext) -> CheckedData:
    """Look at every file, drop what cannot be used, fill in the splits. Strategy: check."""
    loaded = context.read("data", LoadedData)
    dataset = load_table(context.folder("data"), loaded)
    strategy = cast(DataCheck, context.build("check"))
    context.progress(0, 0, f"opening {loaded.rows:,} images")
    limits = CheckLimits(max_pixels=context.option("max_pixels"))
    report = strategy.check(dataset, limits)
    kept = apply_report(dataset, report, max_bad_share=context.option("max_bad_share"))
    split = assign_splits(
        kept, validation=context.option("validation"), test=context.option("test"), seed=context.job.seed
    )
    for name in ("train", "test"):
        if not len(split.rows(split=name, domain=SOURCE)):
            raise UserError(
                f"no images are left for the {name} split",
                where=dataset.name,
                hint="add images, or change data.test",
            )
    if not len(split.rows(split="val", domain=SOURCE)):
        message = "no validation images: epochs, strategies and candidates are chosen on the training images"
        report = report.model_copy(
            update={
                "problems": (
                    *report.problems,
                    Problem(code="no-validation", severity="warning", message=message),
                )
            }
        )
    save_table(context.work.folder, split)
    classes = split.task == "classification"
    report = report.model_copy(
        update={
            "rows": len(split.table),
            "dropped": len(dataset.table) - len(split.table),
            "classes": split.classes,
            "counts": _class_counts(split)
            if classes
            else label_counts(split.table, split.classes, split.task),
            "images": {} if classes else place_images(split.table),
            "task": split.task,
        }
    )
    return CheckedData(
        name=split.name, classes=split.classes, rows=len(split.table), fingerprint=split.fingerprint,
        has_target=split.has_target, report=report, task=split.task,
        given_splits=tuple(name for name in ("train", "val", "test") if len(kept.rows(split=name, domain=SOURCE))),
    )  # fmt: skip


def _class_counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Rows per "domain/split" and class."""
    counts: dict[str, dict[str, int]] = {}
    for domain, part, label in dataset.table.select("domain", "split", "label").rows():
        place = counts.setdefault(f"{domain}/{part}", {})
        place[label or "(no label)"] = place.get(label or "(no label)", 0) + 1
    return {place: dict(sorted(found.items())) for place, found in sorted(counts.items())}


def decode_images(
    store: Store, registry: Registry, job: StageJob, progress: Progress
) -> tuple[str, Callable[[Work], None]]:
    """Decode images once, for all rules that nobody decoded for before.

    The pixels of each rule are an entry of their own; this stage looks for them in every run.

    Options:
        rules: Preprocess documents.
        max_pixels: largest width x height.
        purpose: "exact" (default): every row, by the very rule. "scoring": only the rows of `scoring_rows`,
            decoded fast and nearly the same; nothing but scores may look at them.
        max_images: for scoring, how many rows at most.
    """
    (data,) = job.inputs["data"]
    dataset = load_table(store.folder(data), store.read(data, CheckedData))
    rules = {rule.decode_key(): rule for rule in map(Preprocess.model_validate, job.options["rules"])}
    wanted = _exact(dataset) if job.options.get("purpose", "exact") == "exact" else _for_scoring(dataset, job)
    keys = {name: content_key({**wanted.address, "data": data.key, "rule": name}) for name in rules}
    key = content_key({"stage": "decode", "pixels": keys})
    folder = store.scratch("decode", key)
    # Two runs that decode the same would write into the same folder: the second waits and finds the pixels.
    with store.lock(f"decoding-{key}", waiting=lambda: progress(0, 0, "another run decodes; waiting for it")):
        missing = [rule for name, rule in rules.items() if store.find("pixels", keys[name]) is None]
        files = {}
        if missing:
            files = decode(
                dataset.table["uri"].gather(wanted.rows).to_list(), missing, folder=folder, read=_unchanged(wanted.read, dataset),
                max_pixels=job.options["max_pixels"], workers=job.threads,
                on_progress=lambda done, total: progress(done, total, f"decoding, {wanted.purpose}"),
            )  # fmt: skip

        def entry(name: str) -> Callable[[Work], None]:
            def write(work: Work) -> None:
                files[name].replace(work.folder / files[name].name)
                if wanted.purpose == "scoring":
                    np.save(work.folder / ROWS, wanted.rows)
                work.write(
                    PixelFiles(
                        rule=name, file=files[name].name, images=len(wanted.rows), purpose=wanted.purpose
                    )
                )

            return write

        refs = {name: store.compute("pixels", keys[name], entry(name))[0] for name in rules}
        shutil.rmtree(folder, ignore_errors=True)
    return key, lambda work: work.write(DecodedImages(pixels=refs))


def _unchanged(read: Reader, dataset: Dataset) -> Reader:
    """`read`, refusing a file whose bytes are not those of the table: pixels lie at the address of its hashes.

    The file is hashed after it was read, so that a change before that is seen as well; it lies in the system's cache
    then, and hashing 150 kB takes 0.09 ms, where decoding takes 2 to 3.
    """
    known = dict(dataset.table.select("uri", "sha256").iter_rows())

    def reading(path: str, rules: Sequence[Preprocess], max_pixels: int) -> list[NDArray[np.uint8]]:
        found = read(path, rules, max_pixels)
        with open(path, "rb") as file:  # noqa: PTH123 - the path as the reader takes it
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if known[path] and digest != known[path]:
            raise UserError(
                "the file has changed since it was looked at", where=path, hint="run the same command again"
            )
        return found

    return reading


@dataclass(frozen=True)
class _Wanted:
    """Which rows are decoded, how, and what of that is part of the pixels' address."""

    purpose: Literal["exact", "scoring"]
    rows: NDArray[np.int64]
    read: Reader
    address: dict[str, Json]


def _exact(dataset: Dataset) -> _Wanted:
    return _Wanted("exact", np.arange(len(dataset.table)), exact_pixels, {"stage": "pixels"})


def _for_scoring(dataset: Dataset, job: StageJob) -> _Wanted:
    from tlcore.data.scoring_pixels import decoder_identity, scoring_pixels

    rows = scoring_rows(dataset, job.options["max_images"], job.seed)
    address: dict[str, Json] = {
        "stage": "pixels",
        "purpose": "scoring",
        "rows": hashlib.sha256(rows.tobytes()).hexdigest(),
        "decoder": decoder_identity(),
    }
    return _Wanted("scoring", rows, scoring_pixels, address)

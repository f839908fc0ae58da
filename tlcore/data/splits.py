"""Making the splits that are missing: stratified, seeded, and blind to the order of rows.

Identical bytes are one image here: all its copies go to one split, so that nothing seen in training is
tested on. Images are put in order by SHA-256 of (seed, the file's SHA-256), hence the same table gives the same
splits in any row order, and a new image moves few of the old ones.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tlcore.data.strata import number_bins
from tlcore.data.tag_splits import iterative_stratification
from tlcore.errors import UserError
from tlcore.values import SOURCE, TARGET, Dataset

__all__ = ["assign_splits"]

_PRIORITY = ("test", "val", "train")
"""Where copies of an image were given different splits, a copy without a split follows the first of these."""


@dataclass(frozen=True)
class _Row:
    """label: the class, or the bin of the number; with tags "" for an image that is labelled."""

    label: str | None
    split: str | None
    domain: str
    content: str
    tags: tuple[str, ...] = ()


def assign_splits(dataset: Dataset, *, validation: float, test: float, seed: int) -> Dataset:
    """The dataset with every split filled in, in the same row order.

    In each domain by itself: a missing test or val split is carved out of the images that are marked train or
    not marked at all; what remains of these is train. Splits val and test that are given stay as they are, and so
    does train where all three are given. Shares are of the images that are carved from.

    Source images are stratified by label: a class of n images gives floor(share * n + 1/2) to a split, where both
    are made at least one to each from n = 3 on, one to test for n = 2, and always leaves one in train. Target
    images are stratified by label for the test split alone; val and train are drawn as if there were no labels.

    Numbers are stratified as if their quantile bins (`tlcore.data.strata.number_bins`, in each domain) were classes.
    Images with tags are spread so that each tag is (`tlcore.data.tag_splits`).

    Args:
        validation, test: shares in [0, 1) with a sum below 1; 0 makes no such split.
        seed: another seed, another draw.

    Raises:
        UserError: shares out of range, or a domain whose every image is given as val or test.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise UserError(
            f"validation {validation:g} and test {test:g} leave nothing to train on",
            where="data.validation, data.test",
            hint="choose shares of at least 0 whose sum is below 1",
        )
    rows = _rows(dataset)
    missing = {domain: _missing(rows, domain, dataset.name) for domain in (SOURCE, TARGET)}
    in_pool = [row.split is None or (row.split == "train" and bool(missing[row.domain])) for row in rows]
    settled = _settled(row for row, free in zip(rows, in_pool, strict=True) if not free)
    for domain in (SOURCE, TARGET):
        pool = [row for row, free in zip(rows, in_pool, strict=True) if free and row.domain == domain]
        shares = {
            "val": validation if "val" in missing[domain] else 0.0,
            "test": test if "test" in missing[domain] else 0.0,
        }
        if dataset.task == "multi-label":
            _carve_tags(pool, settled, shares, blind=domain == TARGET, seed=seed)
        else:
            _carve(pool, settled, shares, blind=domain == TARGET, seed=seed)
    splits = [settled[row.content] if free else row.split for row, free in zip(rows, in_pool, strict=True)]
    column = pl.Series("split", splits, dtype=pl.String)
    return replace(dataset, table=dataset.table.with_columns(column))


def _rows(dataset: Dataset) -> list[_Row]:
    columns = dataset.table.select("sample_id", "label", "split", "domain", "sha256").iter_rows()
    bins = _bins(dataset) if dataset.task == "regression" else None
    rows = []
    for place, (sample_id, label, split, domain, sha256) in enumerate(columns):
        where, content = TARGET if domain == TARGET else SOURCE, sha256 or f"unread:{sample_id}"
        if bins is not None:
            rows.append(_Row(bins[place], split, where, content))
        elif dataset.task == "multi-label":
            rows.append(_Row(None if label is None else "", split, where, content, tuple(label or ())))
        else:
            rows.append(_Row(label, split, where, content))
    return rows


def _bins(dataset: Dataset) -> list[str | None]:
    """The quantile bin of each row's number among those of its domain; None without a number."""
    found: list[str | None] = [None] * len(dataset.table)
    labelled, numbers = dataset.labelled(), dataset.targets()
    is_target = (dataset.table["domain"] == TARGET).to_numpy()
    for domain in (is_target, ~is_target):
        rows = np.flatnonzero(labelled & domain)
        for row, code in zip(rows, number_bins(numbers[rows]), strict=True):
            found[int(row)] = f"{code:02}"
    return found


def _missing(rows: list[_Row], domain: str, name: str) -> set[str]:
    """The splits to make in this domain."""
    given = {row.split for row in rows if row.domain == domain}
    if given and not given & {"train", None}:
        raise UserError(
            f"the {domain} images have no training split: all are given as {' and '.join(sorted(map(str, given)))}",
            where=name,
            hint="add a train split, or leave the splits out to have them made",
        )
    return {"val", "test"} - given


def _settled(rows: Iterable[_Row]) -> dict[str, str]:
    """content -> split, of the images whose split stays as given."""
    settled: dict[str, str] = {}
    for row in rows:
        if row.split is not None:
            before = settled.get(row.content, row.split)
            settled[row.content] = min(before, row.split, key=_PRIORITY.index)
    return settled


def _carve(
    pool: list[_Row], settled: dict[str, str], shares: dict[str, float], *, blind: bool, seed: int
) -> None:
    """Give each content of `pool` that is not in `settled` its split there.

    blind: labels balance the test split and nothing else.
    """
    classes = _by_class(pool)
    rest = []
    for contents in classes.values():
        n = len(contents)
        if blind:
            _, test = _counts(n, 0.0, shares["test"] * n)
            for content in _order(contents, settled, seed)[: max(0, test - _have(contents, settled, "test"))]:
                settled[content] = "test"
            rest += [content for content in contents if settled.get(content) != "test"]
        else:
            _draw(contents, settled, *_counts(n, shares["val"] * n, shares["test"] * n), seed=seed)
    if blind:
        images = sum(map(len, classes.values()))
        val, _ = _counts(len(rest), shares["val"] * images, 0.0)
        _draw(rest, settled, val, 0, seed=seed)


def _carve_tags(
    pool: list[_Row], settled: dict[str, str], shares: dict[str, float], *, blind: bool, seed: int
) -> None:
    """As `_carve`, with every tag spread like the images; copies with different tags count with all of them."""
    tags: dict[str, set[str]] = defaultdict(set)
    for row in pool:
        if row.label is not None:
            tags[row.content] |= set(row.tags)
    drawn = {content: sorted(tags[content]) for content in sorted(tags, key=lambda one: _draw_key(one, seed))}
    wanted = {"train": 1 - shares["val"] - shares["test"], "test": shares["test"], "val": shares["val"]}
    if blind:
        wanted = {"train": 1 - shares["test"], "test": shares["test"]}
    wanted = {split: share for split, share in wanted.items() if share > 0}
    made = iterative_stratification(drawn, settled, wanted)
    bare = list(dict.fromkeys(row.content for row in pool if row.content not in tags))
    n = len(bare)
    if blind:
        settled |= {content: split for content, split in made.items() if split == "test"}
        _, test = _counts(n, 0.0, shares["test"] * n)
        for content in _order(bare, settled, seed)[: max(0, test - _have(bare, settled, "test"))]:
            settled[content] = "test"
        rest = list(dict.fromkeys(row.content for row in pool if settled.get(row.content) != "test"))
        val, _ = _counts(len(rest), shares["val"] * len({row.content for row in pool}), 0.0)
        _draw(rest, settled, val, 0, seed=seed)
        return
    settled |= made
    _draw(bare, settled, *_counts(n, shares["val"] * n, shares["test"] * n), seed=seed)


def _by_class(pool: list[_Row]) -> dict[str | None, list[str]]:
    """Distinct contents per label; copies with different labels count for the first label by name."""
    label: dict[str, str | None] = {}
    for row in pool:
        before = label.setdefault(row.content, row.label)
        if row.label is not None and (before is None or row.label < before):
            label[row.content] = row.label
    classes: dict[str | None, list[str]] = defaultdict(list)
    for content, name in label.items():
        classes[name].append(content)
    return classes


def _counts(n: int, val: float, test: float) -> tuple[int, int]:
    """How many of n images go to val and test, from the wanted real numbers; 0 wants none."""
    chosen_test = max(1, math.floor(test + 0.5)) if test > 0 and n >= 2 else 0
    chosen_val = max(1, math.floor(val + 0.5)) if val > 0 and n >= (3 if test > 0 else 2) else 0
    while chosen_val + chosen_test > max(0, n - 1):
        if chosen_val > chosen_test:
            chosen_val -= 1
        else:
            chosen_test -= 1
    return chosen_val, chosen_test


def _draw(contents: list[str], settled: dict[str, str], val: int, test: int, *, seed: int) -> None:
    test = max(0, test - _have(contents, settled, "test"))
    val = max(0, val - _have(contents, settled, "val"))
    for place, content in enumerate(_order(contents, settled, seed)):
        settled[content] = "test" if place < test else "val" if place < test + val else "train"


def _have(contents: list[str], settled: dict[str, str], split: str) -> int:
    return sum(settled.get(content) == split for content in contents)


def _order(contents: list[str], settled: dict[str, str], seed: int) -> list[str]:
    """The contents without a split yet, in their drawn order."""
    free = [content for content in contents if content not in settled]
    return sorted(free, key=lambda content: _draw_key(content, seed))


def _draw_key(content: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{content}".encode()).digest()

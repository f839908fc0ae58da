"""Real photographs: the folders load, pass the check and are split. Needs TLCORE_SHARED."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tlcore.data.checking import apply_report
from tlcore.data.folder import read_folder
from tlcore.data.images import decode, load_pixels
from tlcore.data.schema import combine
from tlcore.data.splits import assign_splits
from tlcore.protocols import CheckLimits
from tlcore.values import Dataset, Preprocess
from tlcore_data.image_table import ImageTable

SHARED = Path(os.environ.get("TLCORE_SHARED", Path(__file__).parents[3] / "shared")) / "data"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="TLCORE_SHARED names no folder with a data folder"),
]


def prepare(source: str, target: str | None = None) -> Dataset:
    theirs = read_folder(str(SHARED / target), labelled=False) if target else None
    dataset = combine(read_folder(str(SHARED / source)), theirs)
    report = ImageTable().check(dataset, CheckLimits())
    assert not [problem for problem in report.problems if problem.severity == "error"]
    kept = apply_report(dataset, report, max_bad_share=0.0)
    return assign_splits(kept, validation=0.15, test=0.2, seed=0)


@pytest.mark.parametrize(
    ("name", "classes", "learn", "test"), [("hymenoptera", 2, 244, 153), ("flowers5", 5, 300, 150)]
)
def test_photographs_are_checked_and_a_validation_split_is_carved(
    name: str, classes: int, learn: int, test: int
) -> None:
    dataset = prepare(name)
    assert len(dataset.classes) == classes
    assert dataset.rows(split="test").height == test
    val = dataset.rows(split="val").height
    assert val + dataset.rows(split="train").height == learn
    assert abs(val - 0.15 * learn) <= classes


@pytest.mark.slow
def test_a_domain_pair_becomes_one_table_with_both_domains_split() -> None:
    dataset = prepare("pacs/photo", "pacs/sketch")
    assert len(dataset.classes) == 7
    for domain in ("source", "target"):
        sizes = [dataset.rows(split=split, domain=domain).height for split in ("train", "val", "test")]
        assert sizes[2] == 112
        assert sum(sizes) == 336
        assert min(sizes) >= 30


def test_photographs_decode_to_natural_pixels(tmp_path: Path) -> None:
    dataset = prepare("hymenoptera")
    rule = Preprocess(height=64, width=64)
    uris = dataset.rows(split="val")["uri"].to_list()
    pixels = load_pixels(decode(uris, [rule], folder=tmp_path)[rule.decode_key()])
    assert pixels.shape == (len(uris), 64, 64, 3)
    assert pixels.reshape(len(uris), -1).std(axis=1).min() > 5

"""The decode stage: which rows, by which rule, for what, and what is found again."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tlcore.data.images import load_pixels, open_rgb, to_pixels
from tlcore.errors import PluginError, UserError
from tlcore.features.files import load_features
from tlcore.stages.base import StageContext, StageJob, run_stage
from tlcore.stages.tables import load_table, pixels_for, pixels_of_rows, rows_of, scoring_rows
from tlcore.stages.values import CheckedData, DecodedImages, FeatureFiles, PixelFiles
from tlcore.store import Work, content_key
from tlcore.values import Dataset, Preprocess, Ref

from .conftest import CLASSES, Chain, source, write_images, write_zoo

RULES = (Preprocess(height=32, width=32), Preprocess(height=40, width=32, resize="squash"))


def write_photos(root: Path, per_class: int = 8) -> Path:
    """JPEGs large enough that those for scoring are decoded reduced."""
    for path in sorted(write_images(root, per_class, seed=0).rglob("*.png")):
        with Image.open(path) as image:
            image.resize((360, 400), Image.Resampling.BICUBIC).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    return root


def decoded(
    chain: Chain, data: Ref, purpose: str | None, *, rules: tuple[Preprocess, ...] = RULES, limit: int = 9, seed: int = 0
) -> dict[str, Ref]:  # fmt: skip
    options = {"rules": [rule.model_dump(mode="json") for rule in rules], "max_pixels": 10_000_000}
    if purpose is not None:
        options["purpose"] = purpose
    if purpose == "scoring":
        options["max_images"] = limit
    ref = chain("decode", purpose or "", inputs={"data": data}, options=options, seed=seed)
    return chain.store.read(ref, DecodedImages).pixels


def table(chain: Chain, data: Ref) -> Dataset:
    return load_table(chain.store.folder(data), chain.store.read(data, CheckedData))


def context(chain: Chain, pixels: Ref, folder: Path) -> StageContext:
    """What a stage sees that is given these pixels."""
    job = StageJob(stage="features", inputs={"pixels": (pixels,)})
    return StageContext(
        chain.store, chain.registry, job, Work(folder, folder), lambda done, total, text="": None
    )


def test_exact_pixels_are_of_all_rows_by_the_very_rule(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos"))
    uris = table(chain, data).table["uri"].to_list()
    for rule in RULES:
        ref = decoded(chain, data, "exact")[rule.decode_key()]
        found = pixels_for(context(chain, ref, tmp_path), rule)
        np.testing.assert_array_equal(found, np.stack([to_pixels(open_rgb(uri), rule) for uri in uris]))


def test_the_address_of_exact_pixels_is_the_data_and_the_rule(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos", 4))
    for purpose in ("exact", None):
        refs = decoded(chain, data, purpose)
        assert {name: ref.key for name, ref in refs.items()} == {
            name: content_key({"stage": "pixels", "data": data.key, "rule": name}) for name in refs
        }


def test_pixels_for_scoring_are_of_a_stratified_sample_of_labelled_training_images(
    chain: Chain, tmp_path: Path
) -> None:
    data = chain.data(write_photos(tmp_path / "photos"), write_photos(tmp_path / "target", 4))
    dataset = table(chain, data)
    rows = scoring_rows(dataset, 9, 0)
    assert set(rows) < set(rows_of(dataset, "train", labelled=True))
    assert np.bincount(np.asarray(dataset.labels())[rows]).tolist() == [3] * len(CLASSES)
    for rule in RULES:
        ref = decoded(chain, data, "scoring")[rule.decode_key()]
        files = chain.store.read(ref, PixelFiles)
        assert (files.purpose, files.images) == ("scoring", 9)
        assert len(load_pixels(chain.store.folder(ref) / files.file)) == 9
        pixels, places = pixels_of_rows(context(chain, ref, tmp_path), rule, rows[::-2])
        assert isinstance(pixels, np.memmap)
        for row, found in zip(rows[::-2], pixels[places], strict=True):
            exact = to_pixels(open_rgb(dataset.table["uri"][int(row)]), rule).astype(int)
            assert np.abs(found - exact).mean() <= 2
            assert np.abs(found - exact).max() > 0  # decoded reduced, not by the exact rule


def test_the_two_purposes_never_share_an_entry(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos", 4))
    exact, scoring = decoded(chain, data, "exact"), decoded(chain, data, "scoring", limit=10_000)
    assert not {ref.key for ref in exact.values()} & {ref.key for ref in scoring.values()}


def test_training_refuses_pixels_for_scoring(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos", 6))
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    assert candidate.preprocess is not None
    rule = candidate.preprocess.decoding()
    pixels = decoded(chain, data, "scoring", rules=(rule,), limit=10_000)[rule.decode_key()]
    with pytest.raises(PluginError, match="pixels for scoring"):
        chain.train(data, pixels, candidate, "linear-probe")


def test_rows_that_were_not_decoded_are_refused(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos"))
    ref = decoded(chain, data, "scoring")[RULES[0].decode_key()]
    with pytest.raises(PluginError, match="pixels of 9 rows"):
        pixels_of_rows(context(chain, ref, tmp_path), RULES[0], rows_of(table(chain, data), "val"))


def test_pixels_of_another_rule_are_refused(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos", 4))
    ref = decoded(chain, data, "scoring")[RULES[0].decode_key()]
    with pytest.raises(PluginError, match=RULES[1].decode_key()):
        pixels_of_rows(context(chain, ref, tmp_path), RULES[1], np.arange(1))


@pytest.mark.parametrize("purpose", ["exact", "scoring"])
def test_another_rule_is_decoded_and_the_others_are_left(chain: Chain, tmp_path: Path, purpose: str) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    data = chain.data(photos)
    before = decoded(chain, data, purpose, rules=RULES[:1])
    stamp = (chain.store.folder(before[RULES[0].decode_key()]) / "value.json").stat().st_mtime_ns
    both = decoded(chain, data, purpose)
    assert set(both) == {rule.decode_key() for rule in RULES}
    assert both[RULES[0].decode_key()] == before[RULES[0].decode_key()]
    assert (chain.store.folder(before[RULES[0].decode_key()]) / "value.json").stat().st_mtime_ns == stamp
    for path in photos.rglob("*.jpg"):
        path.unlink()
    assert decoded(chain, data, purpose) == both  # not one file is opened again


def test_only_other_rows_make_another_entry(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos"))
    first = decoded(chain, data, "scoring", limit=9)
    assert decoded(chain, data, "scoring", limit=9, seed=1) != first
    assert decoded(chain, data, "scoring", limit=12) != first
    everything = decoded(chain, data, "scoring", limit=1000)
    assert decoded(chain, data, "scoring", limit=2000, seed=5) == everything


def test_two_runs_at_once_decode_once(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos"))
    document = [rule.model_dump(mode="json") for rule in RULES]
    job = StageJob(
        stage="decode",
        inputs={"data": (data,)},
        options={"rules": document, "max_pixels": 10_000_000, "purpose": "scoring", "max_images": 9},
    )
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(run_stage, chain.store, chain.registry, job) for _ in range(4)]
        results = [future.result() for future in futures]
    assert len({result.ref for result in results}) == 1
    assert sum(not result.cached for result in results) == 1
    assert not list((chain.store.root / "work" / "decode").iterdir())


@pytest.mark.parametrize("purpose", ["exact", "scoring"])
def test_a_file_that_went_bad_after_the_check_is_named(chain: Chain, tmp_path: Path, purpose: str) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    data = chain.data(photos)
    for path in photos.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="cannot be decoded now: truncated") as caught:
        decoded(chain, data, purpose)
    assert caught.value.where.endswith(".jpg")


def test_features_of_pixels_for_scoring_are_nearly_those_of_exact_ones(chain: Chain, tmp_path: Path) -> None:
    data = chain.data(write_photos(tmp_path / "photos", 12))
    (candidate,) = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))
    assert candidate.preprocess is not None
    rule = candidate.preprocess.decoding()
    found = {}
    for purpose in ("exact", "scoring"):
        pixels = decoded(chain, data, purpose, rules=(rule,), limit=10_000)[rule.decode_key()]
        found[purpose] = chain(
            "features", purpose, inputs={"data": data, "pixels": pixels},
            options={"candidate": candidate.model_dump(mode="json"), "max_images": 10_000},
            strategies={"source": source(candidate)},
        )  # fmt: skip
        assert chain.store.read(found[purpose], FeatureFiles).complete
    exact, scoring = (load_features(chain.store.folder(ref)) for ref in found.values())
    assert list(exact.sample_ids) == list(scoring.sample_ids)
    cosine = (exact.features * scoring.features).sum(1) / (
        np.linalg.norm(exact.features, axis=1) * np.linalg.norm(scoring.features, axis=1)
    )
    assert cosine.min() > 0.99


@pytest.mark.parametrize("purpose", ["exact", "scoring"])
def test_a_file_that_changed_after_it_was_hashed_is_refused(
    chain: Chain, tmp_path: Path, purpose: str
) -> None:
    """Of the same size and the same times: its bytes count."""
    data = chain.data(write_photos(tmp_path / "photos"))
    train = table(chain, data).table.filter(pl.col("split") == "train")
    path = Path(train["uri"][0])
    facts, before = path.stat(), path.read_bytes()
    changed = bytearray(before)
    changed[-30] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(UserError, match="changed since it was looked at") as caught:
        decoded(chain, data, purpose, limit=100)
    assert (caught.value.where, caught.value.hint) == (str(path), "run the same command again")
    path.write_bytes(before)
    assert decoded(chain, data, purpose, limit=100)

"""Adaptation stage by stage: features of both domains, the gap, adapters in every mode, their picture."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.stages.conftest import CLASSES, Chain, source, write_images, write_zoo
from tlcore.errors import UserError
from tlcore.stages.tables import pixels_for
from tlcore.stages.values import AdaptedModel, Embedded, Trained
from tlcore.values import Candidate, DomainGap, Ref, Scatter


class Domains:
    """A labelled source, a brighter target, a candidate and its source-only model."""

    def __init__(self, chain: Chain, folder: Path, *, table: Path | None = None) -> None:
        self.chain = chain
        photos = write_images(folder / "photos", 8, seed=0)
        target = folder / "target"
        for split in ("train", "val", "test"):
            write_images(target / split, 4, seed=len(split), offset=25)
        self.candidate: Candidate = chain.candidates(write_zoo(folder / "zoo", ("test_resnet",)))[0]
        self.data = chain.data(table) if table else chain.data(photos, _manifest(target))
        self.pixels = chain.pixels(self.data, self.candidate)
        self.model = chain.train(self.data, self.pixels, self.candidate, "linear-probe")

    @property
    def places(self) -> dict[str, Ref]:
        return {"data": self.data, "pixels": self.pixels, "model": self.model}

    def embed(self) -> Ref:
        return self.chain("embed", inputs=self.places, strategies={"source": source(self.candidate)})

    def adapt(self, adapter: str, options: dict[str, Any] | None = None, **parts: Any) -> AdaptedModel:
        ref = self.chain.adapt(self.data, self.pixels, self.model, adapter, options, **parts)
        return self.chain.store.read(ref, AdaptedModel)

    def gap(self, **options: Any) -> DomainGap:
        inputs = {"data": self.data, "model": self.model, "embedded": self.embed()}
        told = {
            "label_sets": "closed",
            "declared": False,
            "missing_classes": [],
            "new_classes": [],
            **options,
        }
        ref = self.chain("gap", inputs=inputs, options=told, strategies={"source": source(self.candidate)})
        return self.chain.store.read(ref, DomainGap)


def _manifest(target: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    lines = [
        f"{path.relative_to(target)},{path.parent.name},{path.parent.parent.name}"
        for path in sorted(target.rglob("*.png"))
        if path.parent.name in classes
    ]
    table = target / f"{len(classes)}.csv"
    table.write_text("\n".join(["uri,label,split", *lines]))
    return table


@pytest.fixture
def domains(chain: Chain, tmp_path: Path) -> Domains:
    torch.set_num_threads(1)
    return Domains(chain, tmp_path)


def test_the_features_of_every_row_are_those_of_the_source_only_network(domains: Domains) -> None:
    from tlcore.stages.base import StageContext, StageJob, no_progress
    from tlcore.stages.networks import load_network

    ref = domains.embed()
    value = domains.chain.store.read(ref, Embedded)
    stored = np.load(domains.chain.store.folder(ref) / "features.npy")
    assert stored.shape == (value.rows, value.dim) and np.isfinite(stored).all()
    choice = {"kind": "model-source", "name": "local", "options": domains.candidate.source["options"]}
    job = StageJob.model_validate(
        {
            "stage": "x",
            "inputs": {name: (ref,) for name, ref in domains.places.items()},
            "strategies": {"source": choice},
        }
    )
    context = StageContext(domains.chain.store, domains.chain.registry, job, None, no_progress)  # type: ignore[arg-type]
    network = load_network(context, "model", domains.chain.store.read(domains.model, Trained).checkpoint)
    assert network.backbone_dim == value.dim
    rule = domains.candidate.preprocess
    images = torch.from_numpy(np.array(pixels_for(context, rule))).permute(0, 3, 1, 2) / 255
    mean, spread = (torch.tensor(value).view(1, 3, 1, 1) for value in (rule.mean, rule.std))
    with torch.inference_mode():
        expected = network.eval().backbone((images - mean) / spread)
    np.testing.assert_allclose(stored, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("train", ["all", "last", "head"])
def test_an_adapter_works_in_every_mode_and_its_network_can_be_built_again(
    domains: Domains, train: str
) -> None:
    found = domains.adapt("coral", {"train": train, "steps": 6, "checkpoints": 3})
    assert (found.checkpoint.bottleneck is not None) == (train == "head")
    assert [line.epoch for line in found.adapted.history] == [1, 2, 3][: len(found.adapted.history)]
    assert len(found.adapted.history) == 3 or found.adapted.stopped
    assert set(found.adapted.validators) == {"im", "bnm"} and 0 <= found.adapted.validator_score <= 1
    assert found.adapted.estimates is not None and found.source_only.estimates is not None
    # the evaluation reads the predictions that the rebuilt network gave
    inputs = {"data": domains.data, "model": domains.chain.done["adapt-coral"].ref}
    domains.chain("evaluate", inputs=inputs, options={"replicates": 100})
    exported = domains.chain(
        "export", "x", inputs=inputs,
        strategies={"source": source(domains.candidate), "exporter": ("exporter", "onnx", {})},
    )  # fmt: skip
    assert (domains.chain.store.folder(exported) / "model.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["knn", "prototype"])
@pytest.mark.parametrize(("adapter", "train"), [("coral", "all"), ("coral", "head"), ("adabn", None)])
def test_an_adapter_starts_from_heads_of_every_kind(
    domains: Domains, tuner: str, adapter: str, train: str | None
) -> None:
    domains.model = domains.chain.train(domains.data, domains.pixels, domains.candidate, tuner)
    options = {"train": train, "steps": 4, "checkpoints": 2} if train else {"batch_size": 16}
    found = domains.adapt(adapter, options)
    kinds = {"knn": "neighbours", "prototype": "unit"}
    moved = train == "head" or (train == "all" and tuner == "knn")
    assert found.checkpoint.head.kind == ("linear" if moved else kinds[tuner])
    inputs = {"data": domains.data, "model": domains.chain.done[f"adapt-{adapter}"].ref}
    exported = domains.chain(
        "export", "x", inputs=inputs,
        strategies={"source": source(domains.candidate), "exporter": ("exporter", "onnx", {})},
    )  # fmt: skip
    assert (domains.chain.store.folder(exported) / "model.onnx").is_file()


def test_on_cached_features_the_backbone_stays_as_it_was(domains: Domains) -> None:
    from safetensors.torch import load_file

    domains.adapt("coral", {"train": "head", "steps": 4, "checkpoints": 1})
    before = load_file(domains.chain.store.folder(domains.model) / "weights.safetensors")
    after = load_file(
        domains.chain.store.folder(domains.chain.done["adapt-coral"].ref) / "weights.safetensors"
    )
    backbone = [name for name in before if name.startswith("backbone.")]
    assert backbone and all(torch.equal(before[name], after[name]) for name in backbone)


def test_the_same_seed_gives_the_same_network_and_another_seed_another(domains: Domains) -> None:
    found = []
    for seed in (0, 0, 1):
        options = {"train": "head", "steps": 4, "checkpoints": 2, "dropout": 0.5}
        place = (domains.data, domains.pixels, domains.model)
        ref = domains.chain.adapt(*place, "coral", options, seed=seed)
        found.append(domains.chain.store.read(ref, AdaptedModel))
        shutil.rmtree(domains.chain.store.folder(ref))  # else the second would be found, not made
    first, again, other = found
    assert first.adapted.validators == again.adapted.validators
    assert first.adapted.validators != other.adapted.validators


def test_the_gap_is_told_before_anything_is_trained(domains: Domains) -> None:
    gap = domains.gap()
    assert list(gap.a_distance) == ["source"] and 0 <= gap.a_distance["source"] <= 2
    assert gap.coral >= 0 and 0 <= gap.domain_error <= 1
    assert sum(gap.source_shares.values()) == pytest.approx(1, abs=0.01) and set(gap.source_shares) == set(
        CLASSES
    )
    assert sum(gap.predicted_shares.values()) == pytest.approx(1, abs=0.01)
    assert len(gap.source_examples) == 6 == len(gap.target_examples)
    assert all("photos" in uri for uri in gap.source_examples) and all(
        "target" in uri for uri in gap.target_examples
    )
    assert gap.notes == () and gap.duplicates == 0


@pytest.mark.slow
def test_files_that_lie_in_both_domains_are_counted_and_named(chain: Chain, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 8, seed=0)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, image in enumerate(sorted(photos.rglob("*.png"))[:20]):
        shutil.copy(image, flat / f"{number:02}.png")
    domains = Domains.__new__(Domains)
    domains.chain = chain
    domains.candidate = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))[0]
    domains.data = chain.data(photos, flat)
    domains.pixels = chain.pixels(domains.data, domains.candidate)
    domains.model = chain.train(domains.data, domains.pixels, domains.candidate, "linear-probe")
    gap = domains.gap()
    assert gap.duplicates == 20 and len(gap.duplicate_examples) == 5
    assert "target:" in gap.duplicate_examples[0]
    assert gap.label_shares == {}


@pytest.mark.slow
def test_test_labels_that_lack_a_class_lead_to_the_setting(chain: Chain, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 8, seed=0)
    target = tmp_path / "target"
    for split in ("train", "val", "test"):
        write_images(target / split, 4, seed=len(split), offset=25)
    domains = Domains.__new__(Domains)
    domains.chain = chain
    domains.candidate = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))[0]
    domains.data = chain.data(photos, _manifest(target, ("ant", "bee")))
    domains.pixels = chain.pixels(domains.data, domains.candidate)
    domains.model = chain.train(domains.data, domains.pixels, domains.candidate, "linear-probe")
    (note,) = domains.gap().notes
    assert '"cat"' in note and 'adapt.label_sets = "partial"' in note
    assert domains.gap(declared=True).notes == ()


@pytest.mark.slow
def test_the_picture_holds_the_same_images_before_and_after(domains: Domains) -> None:
    domains.adapt("coral", {"train": "head", "steps": 4, "checkpoints": 1})
    inputs = {**domains.places, "embedded": domains.embed(), "adapted": domains.chain.done["adapt-coral"].ref}
    ref = domains.chain("scatter", inputs=inputs, strategies={"source": source(domains.candidate)})
    scatter = domains.chain.store.read(ref, Scatter)
    assert [(p.domain, p.label) for p in scatter.before if p.domain == "source"] == [
        (p.domain, p.label) for p in scatter.after if p.domain == "source"
    ]
    assert {p.domain for p in scatter.before} == {"source", "target"}
    assert all(np.isfinite([p.x, p.y]).all() for p in (*scatter.before, *scatter.after))


@pytest.fixture
def three_domains(chain: Chain, tmp_path: Path) -> Domains:
    """One table with two labelled domains and a third that is the target."""
    torch.set_num_threads(1)
    lines = []
    for name, offset, count in (("photo", 0, 6), ("art", 15, 9), ("sketch", 35, 6)):
        for path in sorted(
            write_images(tmp_path / "all" / name, count, seed=offset, offset=offset).rglob("*.png")
        ):
            lines.append(f"{path.relative_to(tmp_path / 'all')},{path.parent.name},{name}")
    table = tmp_path / "all" / "table.csv"
    table.write_text("\n".join(["uri,label,domain", *lines]))
    domains = Domains.__new__(Domains)
    domains.chain = chain
    domains.candidate = chain.candidates(write_zoo(tmp_path / "zoo", ("test_resnet",)))[0]
    loaded = chain(
        "load", options={"target_domain": "sketch"},
        strategies={"source": ("data-source", "manifest", {"path": str(table)})},
    )  # fmt: skip
    limits = {"max_pixels": 10_000_000, "max_bad_share": 0.01, "validation": 0.2, "test": 0.2}
    domains.data = chain(
        "check",
        inputs={"data": loaded},
        options=limits,
        strategies={"check": ("data-check", "image-table", {})},
    )
    domains.pixels = chain.pixels(domains.data, domains.candidate)
    domains.model = chain.train(domains.data, domains.pixels, domains.candidate, "linear-probe")
    return domains


@pytest.mark.slow
def test_several_labelled_domains_in_one_table_adapt_to_the_named_one(three_domains: Domains) -> None:
    gap = three_domains.gap()
    assert list(gap.a_distance) == ["art", "photo"]
    found = three_domains.adapt("coral", {"train": "head", "steps": 4, "checkpoints": 1})
    assert found.source_only.accuracy is not None and found.adapted.accuracy is not None


def test_a_target_domain_that_is_not_in_the_table_is_named(chain: Chain, tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", 4, seed=0)
    with pytest.raises(UserError, match='no image has the domain "sketch"') as caught:
        chain(
            "load", options={"target_domain": "sketch"},
            strategies={"source": ("data-source", "image-folder", {"path": str(photos)})},
        )  # fmt: skip
    assert caught.value.choices == ("source",)


def test_new_classes_of_an_open_target_lose_their_label_and_nothing_else(
    chain: Chain, tmp_path: Path
) -> None:
    from tlcore.stages.tables import load_table
    from tlcore.stages.values import LoadedData

    photos = write_images(tmp_path / "photos", 4, seed=0)
    target = write_images(tmp_path / "target", 4, seed=1, classes=("ant", "zebra"))
    sources = {
        "source": ("data-source", "image-folder", {"path": str(photos)}),
        "target": ("data-source", "image-folder", {"path": str(target)}),
    }
    with pytest.raises(UserError, match="zebra") as caught:
        chain("load", strategies=sources)
    assert 'adapt.label_sets = "open"' in (caught.value.hint or "")
    ref = chain("load", strategies=sources, options={"new_classes": True})
    value = chain.store.read(ref, LoadedData)
    table = load_table(chain.store.folder(ref), value).rows(domain="target")
    assert value.classes == CLASSES
    assert sorted(table["label"].to_list(), key=str) == [None] * 4 + ["ant"] * 4

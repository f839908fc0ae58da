from __future__ import annotations

import errno
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlcore.demo.publish import published
from tlcore.demo.zoo import ZOO, Member, build_zoo, write_rendered_digits
from tlcore.errors import RetryableError, UserError
from tlcore_models.local import Local

TINY = (
    Member("shapes-byobnet", "test_byobnet", "shapes", steps=3),
    Member("textures-efficientnet", "test_efficientnet", "textures", steps=3),
    Member("random-resnet", "test_resnet", ""),
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_zoo(tmp_path_factory.mktemp("demo") / "zoo", members=TINY)


@pytest.mark.slow
def test_the_zoo_is_read_by_the_local_source_and_every_network_answers(zoo: Path) -> None:
    source = Local(spec=str(zoo))
    found = {one.name: one for one in source.candidates()}
    assert list(found) == [member.name for member in TINY] and all(
        one.skipped is None for one in found.values()
    )
    assert [one.classes for one in found.values()] == [10, 8, 0]
    assert found["random-resnet"].pretrained_on == "nothing (random initialisation)"
    for one in found.values():
        assert one.preprocess is not None and one.preprocess.decode_key() == "32x32-squash-1-bilinear"
        assert source.build(one, classes=10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.slow
def test_accuracies_are_reported_beside_the_index(zoo: Path) -> None:
    report = json.loads((zoo / "zoo.json").read_text())
    assert report["random-resnet"]["source_accuracy"] is None
    assert 0 <= report["shapes-byobnet"]["source_accuracy"] <= 1
    kinds = Counter(path.suffix for path in zoo.iterdir())
    assert kinds == {".safetensors": 3, ".json": 2}


@pytest.mark.slow
def test_a_finished_zoo_is_used_again_and_another_seed_is_another_zoo(zoo: Path) -> None:
    said: list[str] = []
    before = (zoo / "random-resnet.safetensors").read_bytes()
    build_zoo(zoo, members=TINY, on_progress=said.append)
    assert said == [f"zoo: 3 networks used again from {zoo}"]
    other = build_zoo(zoo.parent / "other", members=TINY[2:], seed=1)
    assert (other / "random-resnet.safetensors").read_bytes() != before
    same = build_zoo(zoo.parent / "same", members=TINY[2:])
    assert (same / "random-resnet.safetensors").read_bytes() == before


@pytest.mark.slow
def test_an_interrupted_zoo_goes_on_after_the_last_finished_network(tmp_path: Path) -> None:
    class Interrupted(BaseException):
        pass

    def stop(line: str) -> None:
        raise Interrupted(line)

    with pytest.raises(Interrupted):
        build_zoo(tmp_path / "zoo", members=TINY, on_progress=stop)
    assert not (tmp_path / "zoo").exists()
    said: list[str] = []
    build_zoo(tmp_path / "zoo", members=TINY, on_progress=said.append)
    assert [line.split(":")[1].split(",")[0].strip() for line in said] == [
        "textures-efficientnet",
        "random-resnet",
    ]
    assert (tmp_path / "zoo" / "index.json").is_file()


def test_a_changed_recipe_replaces_the_zoo_as_a_whole(tmp_path: Path) -> None:
    build_zoo(tmp_path / "zoo", members=TINY[2:])
    build_zoo(tmp_path / "zoo", members=(Member("other", "test_byobnet", ""),))
    assert sorted(path.name for path in (tmp_path / "zoo").iterdir()) == [
        "index.json",
        "other.safetensors",
        "zoo.json",
    ]


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by the demo"):
        build_zoo(tmp_path / "zoo", members=TINY[2:])
    assert (tmp_path / "zoo" / "thesis.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written"):
        published(tmp_path / "file" / "zoo", "f", lambda partial: None)


def test_the_global_random_state_and_threads_are_left_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(3)
    build_zoo(tmp_path / "zoo", members=TINY[2:])
    assert torch.equal(torch.rand(2), expected) and torch.get_num_threads() == threads


def test_rendered_digits_are_a_folder_per_split_and_class_without_duplicates(tmp_path: Path) -> None:
    folder = write_rendered_digits(tmp_path / "digits", 8, seed=0)
    count = Counter((path.parts[-3], path.parts[-2]) for path in folder.rglob("*.png"))
    digits = [str(digit) for digit in range(10)]
    assert count == {
        (split, digit): 8 if split == "train" else 2 for split in ("train", "val", "test") for digit in digits
    }
    contents = [path.read_bytes() for path in folder.rglob("*.png")]
    assert len(set(contents)) == len(contents)
    image = Image.open(next(folder.rglob("*.png")))
    assert image.size == (32, 32) and image.mode == "L" and np.asarray(image).max() > 60
    again = write_rendered_digits(tmp_path / "again", 8, seed=0)
    assert sorted(path.read_bytes() for path in again.rglob("*.png")) == sorted(contents)
    assert not {
        path.read_bytes() for path in write_rendered_digits(tmp_path / "o", 8, 1).rglob("*.png")
    } & set(contents)
    with pytest.raises(UserError, match="per_class"):
        write_rendered_digits(tmp_path / "none", 0, seed=0)


@pytest.mark.slow
def test_networks_that_learned_digits_transfer_to_scans_and_the_random_one_does_not(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    members = tuple(member for member in ZOO if member.name in ("digits-byobnet", "random-resnet"))
    zoo = build_zoo(tmp_path / "zoo", members=members)
    assert json.loads((zoo / "zoo.json").read_text())["digits-byobnet"]["source_accuracy"] > 0.93
    digits = load_digits()
    scans = [
        Image.fromarray((scan * 255 / 16).round().astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        for scan in digits.images
    ]
    pixels = (
        torch.from_numpy(np.stack([np.asarray(scan) for scan in scans]))[:, None].float() / 255 - 0.5
    ) / 0.5
    train = np.concatenate([np.flatnonzero(digits.target == digit)[:10] for digit in range(10)])
    test = np.setdiff1d(np.arange(len(pixels)), train)
    source, reached = Local(spec=str(zoo)), {}
    for one in source.candidates():
        with torch.inference_mode():
            features = source.build(one, classes=0)(pixels.expand(-1, 3, -1, -1)).numpy()
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=2000))
        probe.fit(features[train], digits.target[train])
        reached[one.name] = probe.score(features[test], digits.target[test])
    assert reached["digits-byobnet"] > 0.85
    assert reached["random-resnet"] < reached["digits-byobnet"] - 0.08


def test_a_full_disk_may_be_tried_again_and_nothing_is_half_written(tmp_path: Path) -> None:
    def fill(partial: Path) -> None:
        (partial / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RetryableError, match="No space left"):
        published(tmp_path / "zoo", "f", fill)
    assert not (tmp_path / "zoo").exists()
    assert published(tmp_path / "zoo", "f", lambda partial: None) is False
    assert published(tmp_path / "zoo", "f", fill) is True

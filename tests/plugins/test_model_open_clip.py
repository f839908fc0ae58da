"""The model source against open_clip's own model of the same folder."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from tests.plugins.tiny_clip import (
    PREPROCESS,
    RESNET,
    TIMM,
    TIMM_PRETRAINED,
    TOKENS,
    VIT,
    configuration,
    save_tiny_clip,
)
from tlcore.data.images import to_pixels
from tlcore.errors import UnknownName, UserError
from tlcore.features.extract import extract
from tlcore.features.normalisation import normalise
from tlcore.models.weights import sha256_of
from tlcore.values import Candidate, Preprocess
from tlcore_models.local import Local
from tlcore_models.open_clip import OpenClip


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    torch.set_num_threads(1)


def only(spec: Path | str, **options: Any) -> Candidate:
    (candidate,) = OpenClip.model_validate({"spec": str(spec), **options}).candidates()
    return candidate


def again(candidate: Candidate) -> OpenClip:
    """The source as another process has it: from the stored candidate."""
    stored = Candidate.model_validate_json(candidate.model_dump_json())
    return OpenClip.model_validate(stored.source["options"])


@pytest.mark.parametrize(
    "model",
    [
        configuration(VIT),
        configuration(VIT, quick_gelu=True),
        configuration(TOKENS),
        configuration(RESNET),
        configuration(TIMM, custom_text=True),
        configuration(TIMM_PRETRAINED, custom_text=True),
    ],
    ids=["vit", "quick-gelu", "tokens", "resnet", "timm", "timm-pretrained"],
)
def test_the_image_tower_gives_open_clips_features(tmp_path: Path, model: dict[str, Any]) -> None:
    folder = save_tiny_clip(tmp_path / "tiny", model)
    candidate = only(folder)
    network = again(candidate).build(candidate, classes=0)
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    assert candidate.preprocess is not None and not network.training
    images = torch.rand(3, 3, candidate.preprocess.height, candidate.preprocess.width)
    with torch.no_grad():
        wanted = theirs.visual(images)
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        torch.testing.assert_close(network(images), wanted)
    assert candidate.params == sum(value.numel() for value in theirs.visual.parameters())
    assert candidate.gmacs and candidate.onnx_bytes and candidate.skipped is None


def test_a_candidate_says_what_it_is_without_its_weights_being_read(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "my-clip", preprocess=PREPROCESS)
    candidate = only(folder)
    assert (candidate.name, candidate.architecture, candidate.classes) == ("my-clip", "CLIP ViT 3x32", 0)
    assert candidate.weights_sha256 == sha256_of(folder / "open_clip_model.safetensors")
    assert candidate.preprocess == Preprocess(
        height=32, width=32, resize="squash", crop_pct=1.0, interpolation="bilinear", mean=(0.4, 0.5, 0.6),
        std=(0.3, 0.25, 0.2),
    )  # fmt: skip
    (folder / "open_clip_model.safetensors").write_bytes(b"damaged")
    assert only(folder).params == candidate.params
    with pytest.raises(UserError, match="not those that were listed"):
        again(candidate).build(candidate)
    with pytest.raises(UserError, match="cannot be loaded"):
        again(only(folder)).build(only(folder))


@pytest.mark.parametrize(
    "said", [{}, PREPROCESS, {"interpolation": "bilinear"}, {"resize_mode": "squash"}], ids=str
)
@pytest.mark.parametrize("size", [(64, 64), (96, 64), (48, 96)])
def test_images_are_prepared_as_open_clip_prepares_them(
    tmp_path: Path, said: dict[str, Any], size: tuple[int, int]
) -> None:
    folder = save_tiny_clip(tmp_path / "tiny", preprocess=said)
    preprocess = only(folder).preprocess
    assert preprocess is not None
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    ours = normalise(torch.from_numpy(to_pixels(image, preprocess))[None], preprocess)
    torch.testing.assert_close(ours[0], transform(image), atol=1e-5, rtol=0)


def test_text_embeddings_are_open_clips_of_unit_length(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "tiny")
    candidate = only(folder)
    texts = [f"a photo of thing number {number}" for number in range(70)]  # more than one batch
    found = again(candidate).text_embeddings(candidate, texts)
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        wanted = theirs.encode_text(open_clip.tokenize(texts))
    assert found.dtype == np.float32 and found.shape == (70, 16)
    np.testing.assert_allclose(found, wanted / wanted.norm(dim=1, keepdim=True), atol=1e-6)
    assert again(candidate).text_embeddings(candidate, ()).shape == (0, 16)


def test_a_text_longer_than_the_context_is_cut(tmp_path: Path) -> None:
    candidate = only(save_tiny_clip(tmp_path / "tiny"))
    found = again(candidate).text_embeddings(candidate, ["word " * 100, "word " * 200])
    np.testing.assert_array_equal(found[0], found[1])


def test_an_architecture_with_a_file_is_that_of_open_clips_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_clip(tmp_path / "tiny", file="weights.pt")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-8", configuration())
    candidate = only(f"Tiny-8@{folder / 'weights.pt'}")
    assert (candidate.name, candidate.architecture) == ("Tiny-8.weights", "Tiny-8")
    network = again(candidate).build(candidate)
    theirs = open_clip.create_model("Tiny-8", pretrained=str(folder / "weights.pt")).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs.encode_image(images))
        wanted = theirs.encode_text(open_clip.get_tokenizer("Tiny-8")(["a"]), normalize=True)
    np.testing.assert_allclose(again(candidate).text_embeddings(candidate, ["a"]), wanted, atol=1e-6)


def put_in_cache(cache: Path, repository: str, files: list[Path]) -> None:
    folder, commit = cache / f"models--{repository.replace('/', '--')}", "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    place = folder / "snapshots" / commit
    place.mkdir(parents=True)
    for file in files:
        shutil.copy(file, place / file.name)


def test_a_hub_repository_is_taken_from_the_cache_and_needs_leave_to_be_fetched(tmp_path: Path) -> None:
    folder, cache = save_tiny_clip(tmp_path / "tiny"), tmp_path / "cache"
    with pytest.raises(UserError, match="--allow-download"):
        only("someone/clip", cache_dir=str(cache))
    put_in_cache(cache, "someone/clip", [folder / "open_clip_config.json"])
    candidate = only("someone/clip", cache_dir=str(cache))
    assert "--allow-download" in (candidate.skipped or "") and candidate.params
    shutil.rmtree(cache)
    put_in_cache(cache, "someone/clip", sorted(folder.iterdir()))
    candidate = only("someone/clip", cache_dir=str(cache))
    assert (candidate.name, candidate.weights, candidate.skipped) == ("clip", "hub", None)
    images = torch.rand(2, 3, 32, 32)
    local = only(folder)
    with torch.no_grad():
        torch.testing.assert_close(
            again(candidate).build(candidate)(images), again(local).build(local)(images)
        )
    np.testing.assert_array_equal(
        again(candidate).text_embeddings(candidate, ["a"]), again(local).text_embeddings(local, ["a"])
    )


@pytest.mark.slow
def test_a_tag_of_open_clips_list_names_repository_preprocessing_and_activation(tmp_path: Path) -> None:
    candidate = only("ViT-B-32@openai", cache_dir=str(tmp_path))
    assert candidate.name == "ViT-B-32.openai" and "local hub cache" in (candidate.skipped or "")
    assert candidate.arguments["model_cfg"]["quick_gelu"] is True
    assert 80e6 < (candidate.params or 0) < 90e6 and 4 < (candidate.gmacs or 0) < 5
    siglip = only("ViT-B-16-SigLIP@webli", cache_dir=str(tmp_path)).preprocess
    assert siglip is not None and siglip.mean == (0.5, 0.5, 0.5) and siglip.resize == "squash"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("./none", "no such folder"),
        ("ViT-B-32@nothing", "no tag of ViT-B-32"),
        ("plain", "no such folder"),
    ],
)
def test_a_spec_that_names_nothing_says_what_would(spec: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        only(spec)


def test_an_unknown_architecture_offers_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        only("ViT-B-23@openai")
    assert "ViT-B-32" in caught.value.choices


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable as JSON"),
        ("[]", "must hold model_cfg"),
        ('{"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}', "embed_dim"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, content: str, said: str) -> None:
    folder = save_tiny_clip(tmp_path / "tiny")
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(UserError, match=said):
        only(folder)


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "tiny")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in the folder"):
        only(folder)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match=r"no open_clip_config\.json"):
        only(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text_cfg": {"hf_model_name": "someone/text"}}, "text tower is made from another hub repository"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:someone/trunk"}}, "made from another repository"),
        ({"vision_cfg": {**VIT, "image_size": 5000}}, "cannot be prepared"),
        ({"vision_cfg": {**VIT, "depth": 3}}, "open_clip cannot make the model"),
    ],
)
def test_a_model_that_cannot_take_part_is_left_out_with_the_reason(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    folder = save_tiny_clip(tmp_path / "tiny")
    document = json.loads((folder / "open_clip_config.json").read_text())
    document["model_cfg"] |= change
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    assert said in (only(folder).skipped or "")


def test_images_that_would_be_padded_leave_a_model_out(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "tiny", preprocess={"resize_mode": "longest"})
    assert "pads images" in (only(folder).skipped or "")


def test_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "tiny")
    save_tiny_clip(tmp_path / "other", configuration({**VIT, "layers": 2}))
    shutil.copy(tmp_path / "other" / "open_clip_model.safetensors", folder)
    candidate = only(folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        again(candidate).build(candidate)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(sys.prefix) / "never",))


def test_a_checkpoint_that_holds_code_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "tiny", file="open_clip_pytorch_model.bin")
    torch.save({"state_dict": Hostile()}, folder / "open_clip_pytorch_model.bin")
    candidate = only(folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        again(candidate).build(candidate)
    assert not (Path(sys.prefix) / "never").exists()


def test_without_pretrained_the_weights_are_random_and_the_head_is_as_wide_as_asked(tmp_path: Path) -> None:
    candidate = only(save_tiny_clip(tmp_path / "tiny"))
    torch.manual_seed(0)
    network = again(candidate).build(candidate, classes=5, pretrained=False)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    kept = again(candidate).build(candidate).state_dict()
    assert not torch.equal(network.state_dict()["visual.proj"], kept["visual.proj"])
    assert {name for name in network.state_dict() if name not in kept} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("engine", ["folded", pytest.param("onnxruntime", marks=pytest.mark.slow)])
@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_engines_extract_the_features_of_the_tower(
    tmp_path: Path, vision: dict[str, Any], engine: str
) -> None:
    candidate = only(save_tiny_clip(tmp_path / "tiny", configuration(vision)))
    network = again(candidate).build(candidate)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert candidate.preprocess is not None
    found = extract(network, pixels, candidate.preprocess, head=True, engine=engine)
    with torch.no_grad():
        wanted = network(normalise(torch.from_numpy(pixels), candidate.preprocess))
    np.testing.assert_allclose(found.features, wanted, atol=1e-4)
    assert (found.engine, found.note, found.probabilities) == (engine, "", None)
    assert (found.folded > 0) == (engine == "folded" and vision is RESNET)


def test_without_the_extra_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_clip(tmp_path / "tiny")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r'pip install "tlcore\[clip\]"'):
        only(folder)


def test_a_source_without_text_says_which_has_it(tmp_path: Path) -> None:
    candidate = only(save_tiny_clip(tmp_path / "tiny"))
    with pytest.raises(UserError, match="no text tower") as caught:
        Local(spec="x").text_embeddings(candidate, ["a"])
    assert "open-clip:" in caught.value.hint

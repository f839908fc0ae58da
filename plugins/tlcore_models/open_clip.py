"""Model source `open-clip`: image-text models, from a folder, a file or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, ModelSource
from tlcore.values import Candidate, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from tlcore.models.clip_config import ClipConfig

__all__ = ["OpenClip"]

HUB = "hub"
"""`Candidate.weights`: a name and not a path, so that a candidate is the same before and after its download."""


@dataclass(frozen=True)
class Found:
    """What a spec stands for.

    tokenizer: what open_clip knows the model by. file: its weights on this machine; None: in `repository`, under the
    first of `files` that it has.
    """

    name: str
    architecture: str
    config: ClipConfig
    tokenizer: str
    file: Path | None = None
    repository: str = ""
    files: tuple[str, ...] = ()


class OpenClip(ModelSource):
    """The image tower of a CLIP, SigLIP or CoCa model; its text tower answers `text_embeddings`.

    A folder as open_clip saves it for the hub (open_clip_config.json beside open_clip_model.safetensors); an
    architecture of open_clip with a file ("ViT-B-32@mine.safetensors") or with a tag of open_clip's list
    ("ViT-B-32@laion2b_s34b_b79k"); a hub repository of such a layout ("ORGANISATION/NAME"). The last two are taken
    from the local hub cache unless `allow_download`. Code that a repository may hold is never run.
    """

    card: ClassVar[Card] = Card(
        name="open-clip",
        summary="image-text models of open_clip: a folder, ARCHITECTURE@FILE, ARCHITECTURE@TAG or a hub repository",
        reference="Radford et al. 2021; https://github.com/mlfoundations/open_clip (extra [clip])",
        traits=frozenset({"text"}),
    )

    spec: str = Field(
        description='folder, "ViT-B-32@FILE", "ViT-B-32@TAG" or hub repository "ORGANISATION/NAME"'
    )
    allow_download: bool = Field(
        False, description="fetch weights from the hub that are not in the local cache"
    )
    cache_dir: str | None = Field(None, description="folder of the hub cache; by default what HF_HOME says")

    def candidates(self) -> tuple[Candidate, ...]:
        return (self._described(fetch=self.allow_download),)

    def listing(self) -> tuple[Candidate, ...]:
        return (self._described(fetch=False),)

    def depends_on(self) -> tuple[str, ...] | None:
        """The folder or the file; of a hub model the hub cache, and with `allow_download` nobody can say."""
        place = self._local()
        if place is not None:
            return (str(place),)
        if self.allow_download:
            return None
        from huggingface_hub.constants import HF_HUB_CACHE

        return (self.cache_dir or HF_HUB_CACHE,)

    def build(
        self, candidate: Candidate, *, classes: int | None = None, pretrained: bool = True
    ) -> nn.Module:
        from tlcore.models.clip import image_tower

        weights = self._weights(candidate, self._found()) if pretrained else None
        return image_tower(_model(candidate), weights=weights, classes=classes or 0, where=candidate.name)

    def text_embeddings(self, candidate: Candidate, texts: Sequence[str]) -> NDArray[np.float32]:
        from tlcore.models.clip import embed_texts, load_clip

        found, model = self._found(), _model(candidate)
        network = load_clip(model, self._weights(candidate, found), where=candidate.name)
        return embed_texts(network, model, found.tokenizer, texts, fetch=self.allow_download)

    def _local(self) -> Path | None:
        """The folder or file that the spec names, where it names one of this machine."""
        whole, file = Path(self.spec).expanduser(), Path(self.spec.partition("@")[2]).expanduser()
        if whole.is_dir():
            return whole.resolve()
        return file.resolve() if "@" in self.spec and file.is_file() else None

    def _found(self) -> Found:
        from tlcore.models.clip_config import (
            CONFIG,
            FILES,
            built_in_config,
            open_clip_module,
            read_config,
            weights_in,
        )

        open_clip = open_clip_module(f"open-clip:{self.spec}")
        place = self._local()
        if place is not None and place.is_dir():
            config, file = read_config(place), weights_in(place)
            return Found(place.name, _family(config), config, f"local-dir:{place}", file=file)
        architecture, at, tag = self.spec.partition("@")
        if at:
            config = built_in_config(architecture)
            if place is not None:
                name = f"{architecture}.{place.name.removesuffix(place.suffix)}"
                return Found(name, architecture, config, architecture, file=place)
            said = open_clip.get_pretrained_cfg(architecture, tag)
            repository, _, file_name = str(said.get("hf_hub") or "").rpartition("/")
            if not repository:
                raise UserError(
                    f'"{tag}" is no file, and no tag of {architecture} on the hub',
                    where=f"open-clip:{self.spec}",
                    choices=open_clip.list_pretrained_tags_by_model(architecture),
                )
            model = {**config.model, **({"quick_gelu": True} if said.get("quick_gelu") else {})}
            files = (file_name,) if file_name else FILES
            return Found(
                f"{architecture}.{tag}", architecture, type(config)(model, dict(said)), architecture,
                repository=repository, files=files,
            )  # fmt: skip
        if self.spec.count("/") == 1 and not self.spec.startswith(("/", ".", "~")):
            folder = self._fetched(self.spec, (CONFIG,)).parent
            config = read_config(folder)
            name = self.spec.partition("/")[2]
            return Found(
                name, _family(config), config, f"local-dir:{folder}", repository=self.spec, files=FILES
            )
        raise UserError(
            "no such folder",
            where=f"open-clip:{self.spec}",
            hint="give a folder with open_clip_config.json, ARCHITECTURE@FILE, ARCHITECTURE@TAG or ORGANISATION/NAME",
        )

    def _fetched(self, repository: str, files: Sequence[str]) -> Path:
        """The first of these files of a hub repository, fetched where that is needed and allowed."""
        from tlcore.models.hub import cached_file, download

        path = cached_file(repository, cache=self.cache_dir, files=files)
        if path is not None:
            return path
        if not self.allow_download:
            raise UserError(
                f"{files[0]} of {repository} is not in the local hub cache",
                where=f"open-clip:{self.spec}",
                hint="the same command with --allow-download, or --models open-clip:FOLDER",
            )
        return download(repository, cache=self.cache_dir, files=files)

    def _described(self, *, fetch: bool) -> Candidate:
        from tlcore.models.clip import tower_size
        from tlcore.models.hub import cached_file, cached_sha256, remote_sha256
        from tlcore.models.weights import sha256_of

        found = self._found()
        place = self._local()
        spec = self.spec if place is None else str(place)
        options: dict[str, Json] = {
            **self.model_dump(mode="json"),
            "spec": f"{found.architecture}@{spec}" if place is not None and place.is_file() else spec,
        }
        candidate = Candidate(
            name=found.name,
            source={"name": self.card.name, "options": options},
            architecture=found.architecture,
            arguments={"model_cfg": found.config.model},
            pretrained_on="image-text pairs",
        )
        try:
            reason = found.config.obstacle()
            if reason:
                raise UserError(reason)
            preprocess = found.config.preprocessing(found.name)
            size = tower_size(found.config.model, preprocess, where=found.name)
        except UserError as error:
            return candidate.model_copy(update={"skipped": error.what})
        candidate = candidate.model_copy(update={"preprocess": preprocess, **size._asdict()})
        if found.file is not None:
            weights = {"weights": str(found.file), "weights_sha256": sha256_of(found.file)}
            return candidate.model_copy(update=weights)
        cached = cached_file(found.repository, cache=self.cache_dir, files=found.files)
        if cached is None and not fetch:
            reason = "its weights are not in the local hub cache: allow the download with --allow-download"
            return candidate.model_copy(update={"skipped": reason})
        digest = cached_sha256(cached) if cached else remote_sha256(found.repository, files=found.files)
        return candidate.model_copy(update={"weights": HUB, "weights_sha256": digest})

    def _weights(self, candidate: Candidate, found: Found) -> Path:
        from tlcore.models.weights import sha256_of

        path = found.file or self._fetched(found.repository, found.files)
        if candidate.weights_sha256 and sha256_of(path) != candidate.weights_sha256:
            raise UserError(
                f'the weights of "{candidate.name}" are not those that were listed',
                where=str(path),
                hint="run the same command again, so that the new file is scored and trained from the start",
            )
        return path


def _model(candidate: Candidate) -> dict[str, Json]:
    """open_clip's configuration as it was when the candidate was listed."""
    model = candidate.arguments.get("model_cfg")
    if not isinstance(model, dict):
        raise UserError("the candidate is none of the model source open-clip", where=candidate.name)
    return model


def _family(config: ClipConfig) -> str:
    """What an image tower is, for people: "CLIP vit_base_patch16_siglip_224", "CLIP ViT 12x768"."""
    vision = config.model["vision_cfg"]
    if vision.get("timm_model_name"):
        return f"CLIP {vision['timm_model_name']}"
    layers, width = vision.get("layers", 12), vision.get("width", 768)
    kind = "ResNet" if isinstance(layers, list | tuple) else "ViT"
    return f"CLIP {kind} {'-'.join(map(str, layers)) if kind == 'ResNet' else layers}x{width}"


@hookimpl
def tlcore_model_sources() -> list[type[ModelSource]]:
    return [OpenClip]

"""Model source `local`: weights on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, ModelSource
from tlcore.values import Candidate, Json

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__all__ = ["Local"]


class Local(ModelSource):
    """Candidates from a folder with an index, or from one weights file. Nothing is ever downloaded.

    A single file is described by the first of these that says its architecture: the `index.json` beside it; the
    safetensors metadata {"architecture": …}; its name up to the first dot, where that is an architecture of timm
    ("resnet18.mine.safetensors"). In the last two cases the preprocessing is timm's default for the architecture.
    """

    card: ClassVar[Card] = Card(
        name="local",
        summary="safetensors or torch weights in a folder with index.json, or one weights file",
        reference="index format: tlcore.models.local_index; safetensors: https://github.com/huggingface/safetensors",
    )

    spec: str = Field(description="a folder with index.json and weights files, or one weights file")
    include: tuple[str, ...] = Field((), description="glob patterns of index entries; empty: all of them")

    def candidates(self) -> tuple[Candidate, ...]:
        from pathlib import Path

        from tlcore.models.local_index import candidates_in

        path = Path(self.spec).expanduser()
        if path.is_file():
            return (self._single(path.absolute()),)
        if not path.is_dir():
            raise UserError(
                "no such folder or file",
                where=f"local:{self.spec}",
                hint="give local: a folder with index.json, or one .safetensors or .pth file",
            )
        options = self._options(path)
        return candidates_in(path, source=self.card.name, options=options, include=self.include)

    def depends_on(self) -> tuple[str, ...]:
        from pathlib import Path

        path = Path(self.spec).expanduser()
        return (str(path.parent if path.is_file() else path),)  # a file is described by the index beside it

    def build(
        self, candidate: Candidate, *, classes: int | None = None, pretrained: bool = True
    ) -> nn.Module:
        from tlcore.models.build import build_network

        return build_network(candidate, classes=classes, pretrained=pretrained)

    def _options(self, path: Path) -> dict[str, Json]:
        """The options that mean the same in a process with another working directory."""
        return {**self.model_dump(mode="json"), "spec": str(path.resolve())}

    def _single(self, path: Path) -> Candidate:
        from tlcore.models.local_index import INDEX, candidate_of, read_index

        source: dict[str, Json] = {"name": self.card.name, "options": self._options(path)}
        if (path.parent / INDEX).is_file():
            for name, entry in read_index(path.parent).items():
                if path.parent / entry.file == path:
                    return candidate_of(name, entry, path.parent, source=source)
        return _without_index(path, source)


def _without_index(path: Path, source: dict[str, Json]) -> Candidate:
    from tlcore.models.build import architecture_of, default_preprocess, head_classes
    from tlcore.models.build import shipped_with_timm as shipped
    from tlcore.models.cost import with_size
    from tlcore.models.weights import read_metadata, read_weights, sha256_of

    state = read_weights(path)
    metadata = read_metadata(path)
    architecture = metadata.get("architecture") or architecture_of(path.name)
    if not shipped(architecture):
        raise UserError(
            f'timm knows no architecture "{architecture}"',
            where=str(path),
            hint=f"name the file after its architecture (resnet18.{path.name}), save it with the metadata "
            '{"architecture": "resnet18"}, or describe it in an index.json beside it',
        )
    candidate = Candidate(
        name=path.name.removesuffix(path.suffix),
        source=source,
        architecture=architecture,
        weights=str(path),
        weights_sha256=sha256_of(path),
        classes=head_classes(architecture, state),
        preprocess=default_preprocess(architecture),
    )
    return with_size(candidate)


@hookimpl
def tlcore_model_sources() -> list[type[ModelSource]]:
    return [Local]

"""Model source `narrow-mobilenets`: index entries whose architecture timm has no name for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, ModelSource
from tlcore.values import Candidate

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NarrowMobileNets"]


class NarrowMobileNets(ModelSource):
    """MobileNetV1 at widths 0.25, 0.5, 0.75 and MobileNetEdgeTPU at 0.75, from a folder with index.json.

    Lists the entries that need these architectures, or with `everything` the whole index.
    """

    card: ClassVar[Card] = Card(
        name="narrow-mobilenets",
        summary="narrow MobileNets that timm has no name for, from a folder with index.json",
        reference="Howard et al. 2017, MobileNets, section 3.3 (width multiplier)",
    )

    spec: str = Field(description="a folder with index.json and weights files")
    everything: bool = Field(
        False, description="list all entries of the index, not only the narrow MobileNets"
    )

    def candidates(self) -> tuple[Candidate, ...]:
        from pathlib import Path

        from timm import is_model

        from tlcore.models.local_index import candidate_of, read_index
        from tlcore_example._architectures import NARROW

        folder = Path(self.spec).expanduser().resolve()
        entries = read_index(folder)
        chosen = {
            name: entry for name, entry in entries.items() if self.everything or entry.architecture in NARROW
        }
        if not chosen:
            raise UserError(
                "no entry of the index needs a narrow MobileNet",
                where=f"narrow-mobilenets:{self.spec}",
                choices=sorted(NARROW),
                hint=f"read the others with local:{self.spec}",
            )
        source = {"name": self.card.name, "options": {"spec": str(folder), "everything": self.everything}}
        return tuple(
            candidate_of(name, entry, folder, source=source, known=is_model) for name, entry in chosen.items()
        )

    def build(
        self, candidate: Candidate, *, classes: int | None = None, pretrained: bool = True
    ) -> nn.Module:
        import tlcore_example._architectures  # noqa: F401 - registers the architectures with timm
        from tlcore.models.build import build_network

        return build_network(candidate, classes=classes, pretrained=pretrained)


@hookimpl
def tlcore_model_sources() -> list[type[ModelSource]]:
    return [NarrowMobileNets]

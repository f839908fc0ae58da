"""Model source `timm`: hub models by name, from the local hub cache unless a download is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tlcore.errors import UnknownName, UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, ModelSource
from tlcore.values import Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

__all__ = ["Timm"]

HUB = "hub"
"""`Candidate.weights`: a name and not a path, so that a candidate is the same before and after its download."""


class Timm(ModelSource):
    """Candidates by timm's hub names. Offline unless `allow_download`.

    A name without a tag ("resnet18") means the architecture's default weights; a glob without a dot
    ("mobilenetv3_*") the default weights of every architecture that it matches, with one ("resnet18.*") all tags.
    """

    card: ClassVar[Card] = Card(
        name="timm",
        summary="pretrained models of timm by name or glob, from the local hub cache or the hub",
        reference="https://github.com/huggingface/pytorch-image-models",
    )

    spec: str = Field(description='hub name or glob: "resnet18", "resnet18.a1_in1k", "mobilenetv3_*"')
    allow_download: bool = Field(
        False, description="fetch weights from the hub that are not in the local cache"
    )
    limit: int = Field(20, ge=1, description="models that a glob may bring, of those with weights to be had")
    cache_dir: str | None = Field(None, description="folder of the hub cache; by default what HF_HOME says")

    def candidates(self) -> tuple[Candidate, ...]:
        described = self._described()
        if self.allow_download and _is_glob(self.spec):
            self._bound(described)  # before the hub is asked for any of them
        found = tuple(self._with_digest(candidate, fetch=self.allow_download) for candidate in described)
        if not _is_glob(self.spec) and found[0].skipped:
            raise UserError(
                found[0].skipped,
                where=f"timm:{self.spec}",
                hint="the same command with --allow-download, or --models local:FILE",
            )
        self._bound(found)
        return found

    def listing(self) -> tuple[Candidate, ...]:
        return tuple(self._with_digest(candidate, fetch=False) for candidate in self._described())

    def depends_on(self) -> tuple[str, ...] | None:
        """The hub cache; with `allow_download` the hub may answer something else each time."""
        if self.allow_download:
            return None
        from huggingface_hub.constants import HF_HUB_CACHE

        return (self.cache_dir or HF_HUB_CACHE,)

    def build(
        self, candidate: Candidate, *, classes: int | None = None, pretrained: bool = True
    ) -> nn.Module:
        from tlcore.models.build import create_network, head_modules
        from tlcore.models.weights import load_into

        if not pretrained:
            return create_network(candidate, classes=classes)
        source = _with_weights(candidate, self._file(candidate))
        if classes is None:
            return source
        network = create_network(candidate, classes=classes)
        head = head_modules(candidate.architecture, network)
        load_into(network, source.state_dict(), where=candidate.name, head=head, fresh_head=True)
        return network

    def _described(self) -> list[Candidate]:
        """All that the spec names, by what timm knows of them; `skipped` where nothing could make them take part."""
        if not _is_glob(self.spec):
            return [self._description(_one(self.spec))]
        names = _matches(self.spec)
        if not names:
            raise UserError("no pretrained model of timm matches", where=f"timm:{self.spec}", hint=LIST)
        return [self._description(name) for name in names]

    def _bound(self, candidates: Sequence[Candidate]) -> None:
        names = [candidate.name for candidate in candidates if candidate.skipped is None]
        if len(names) > self.limit:
            raise UserError(
                f"brings {len(names)} models, more than the limit of {self.limit}: {', '.join(names[:5])}, …",
                where=f"timm:{self.spec}",
                hint=f"narrow the glob (tlcore models 'timm:{self.spec}' lists it), or name some of them",
            )

    def _description(self, name: str) -> Candidate:
        from timm.models import get_pretrained_cfg

        from tlcore.models.build import architecture_of, preprocess_of
        from tlcore.models.cost import with_size

        config = get_pretrained_cfg(name)
        candidate = Candidate(
            name=name,
            source={"name": self.card.name, "options": {**self.model_dump(mode="json"), "spec": name}},
            architecture=architecture_of(name),
            classes=config.num_classes,
            licence=config.license or "unknown",
            pretrained_on=config.tag or "unknown",
        )
        try:
            preprocess = preprocess_of(config.to_dict(), where=name)
            candidate = with_size(candidate.model_copy(update={"preprocess": preprocess}))
        except UserError as error:
            return candidate.model_copy(update={"skipped": error.what})
        if not config.hf_hub_id:
            reason = "its weights are not on the hub: fetch the file yourself and name it as local:FILE"
            return candidate.model_copy(update={"skipped": reason})
        return candidate

    def _with_digest(self, candidate: Candidate, *, fetch: bool) -> Candidate:
        """`candidate` with what its weights are, in the cache or, with `fetch`, on the hub; else with `skipped`."""
        from timm.models import get_pretrained_cfg

        from tlcore.models.hub import cached_file, cached_sha256, remote_sha256

        if candidate.skipped is not None:
            return candidate
        repository = get_pretrained_cfg(candidate.name).hf_hub_id
        found = cached_file(repository, cache=self.cache_dir)
        if found is None and not fetch:
            reason = (
                "its weights are not in the local hub cache: allow the download with --allow-download, "
                "or name weights on this machine as local:FOLDER or local:FILE"
            )
            return candidate.model_copy(update={"skipped": reason})
        digest = cached_sha256(found) if found else remote_sha256(repository)
        return candidate.model_copy(update={"weights": HUB, "weights_sha256": digest})

    def _file(self, candidate: Candidate) -> Path:
        """The weights on this machine, fetched where that is needed and allowed."""
        from timm.models import get_pretrained_cfg

        from tlcore.models.hub import cached_file, download
        from tlcore.models.weights import sha256_of

        repository = get_pretrained_cfg(candidate.name).hf_hub_id
        path = cached_file(repository, cache=self.cache_dir)
        if path is None:
            if not self.allow_download:
                raise UserError(
                    "the weights are not in the local hub cache",
                    where=f"timm:{candidate.name}",
                    hint="run again with --allow-download, or use --models local:FOLDER",
                )
            path = download(repository, cache=self.cache_dir)
        if candidate.weights_sha256 and sha256_of(path) != candidate.weights_sha256:
            raise UserError(
                "the weights in the hub cache are not those that were listed",
                where=str(path),
                hint="run the same command again; if it stays so, remove the file and fetch it with --allow-download",
            )
        return path


LIST = "list names with: tlcore models 'timm:resnet*'"


def _is_glob(spec: str) -> bool:
    return any(sign in spec for sign in "*?[")


def _one(name: str) -> str:
    """The full hub name ("resnet18.a1_in1k") of a name with or without a tag."""
    import difflib

    import timm
    from timm.models import get_pretrained_cfg

    if "." not in name:
        config: Any = get_pretrained_cfg(name)
        if config is not None and config.has_weights:
            return f"{name}.{config.tag}" if config.tag else name
    known = timm.list_pretrained()
    if name in known:
        return name
    if timm.is_model(name):
        raise UserError(
            "timm knows this architecture and has no pretrained weights for it",
            where=f"timm:{name}",
            hint="name weights of your own as local:FILE",
        )
    near = difflib.get_close_matches(name, [*known, *{each.split(".")[0] for each in known}], n=8, cutoff=0.6)
    raise UnknownName("pretrained timm model", name, near, where=f"timm:{name}", hint=LIST)


def _matches(glob: str) -> list[str]:
    """Hub names that a glob stands for, in timm's order."""
    import timm

    if "." in glob:
        return list(timm.list_pretrained(glob))
    architectures = timm.list_models(glob, pretrained=False)
    return [_one(name) for name in architectures if timm.models.is_model_pretrained(name)]


def _with_weights(candidate: Candidate, path: Path) -> nn.Module:
    """timm's own loader on a local file: it renames the tensors of older checkpoints, and is strict here."""
    import timm
    from safetensors import SafetensorError

    overlay = {"file": str(path), "custom_load": False}
    try:
        network: nn.Module = timm.create_model(
            candidate.name, pretrained=True, pretrained_cfg_overlay=overlay
        )
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        lines = str(error).splitlines()
        raise UserError(
            f"the weights in the hub cache cannot be loaded: {' '.join(lines[:3])[:300]}",
            where=f"timm:{candidate.name} ({path})",
            hint="remove the file and fetch it again with --allow-download",
        ) from error
    return network.eval()


@hookimpl
def tlcore_model_sources() -> list[type[ModelSource]]:
    return [Timm]

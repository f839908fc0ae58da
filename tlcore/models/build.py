"""Build timm networks from candidates. timm itself never fetches anything here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from pydantic import ValidationError
from timm.models import get_pretrained_cfg, is_model, model_entrypoint
from torch import Tensor, nn

from tlcore.errors import UserError
from tlcore.models.weights import load_into, read_weights, sha256_of
from tlcore.values import Candidate, Json, Preprocess

__all__ = [
    "architecture_of",
    "build_network",
    "create_network",
    "default_preprocess",
    "head_classes",
    "head_modules",
    "preprocess_of",
    "shipped_with_timm",
]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


def shipped_with_timm(architecture: str) -> bool:
    """Whether timm itself ships this architecture.

    Names that a plugin registered in this process do not count, so that a listing does not depend on which other
    model source ran before it, nor on the process.
    """
    return bool(is_model(architecture)) and model_entrypoint(architecture).__module__.split(".")[0] == "timm"


def architecture_of(name: str) -> str:
    """The architecture in a name such as "resnet18.a1_in1k": what stands before the first dot."""
    return name.split(".", 1)[0]


def create_network(candidate: Candidate, *, classes: int | None = None) -> nn.Module:
    """The randomly initialised network of `candidate`, in eval mode.

    classes: None gives the source's number of outputs (no head where the candidate has none), 0 none (pooled
    features [n, d]), k > 0 a head of k. `img_size` is passed where the architecture needs it (ViT).

    Raises:
        UserError: nobody registered the architecture, or it refuses the arguments.
    """
    outputs = candidate.classes if classes is None else classes
    arguments = _arguments(candidate.architecture, candidate.arguments, candidate.preprocess, candidate.name)
    return _create(candidate.architecture, arguments, outputs, candidate.name).eval()


def build_network(candidate: Candidate, *, classes: int | None = None, pretrained: bool = True) -> nn.Module:
    """`create_network`, filled from the file `candidate.weights`.

    Raises:
        UserError: as `create_network`; no weights file; the file changed since it was listed; it does not fit.
    """
    network = create_network(candidate, classes=classes)
    if not pretrained or candidate.weights is None:
        return network
    path = Path(candidate.weights)
    state = read_weights(path)
    if candidate.weights_sha256 and sha256_of(path) != candidate.weights_sha256:
        raise UserError(
            f'the weights of "{candidate.name}" changed since the candidates were listed',
            where=str(path),
            hint="run the same command again, so that the new file is scored and trained from the start",
        )
    load_into(
        network,
        state,
        where=f"{candidate.name} ({path.name})",
        head=head_modules(candidate.architecture, network),
        fresh_head=classes is not None,
    )
    return network


def head_modules(architecture: str, network: nn.Module | None = None) -> tuple[str, ...]:
    """Names of the classifier modules, as timm's configuration says them ("fc", "head.fc")."""
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or _config(architecture)
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def head_classes(architecture: str, state: Mapping[str, Tensor]) -> int:
    """Outputs of the head that a file holds for `architecture`; 0 when it holds none."""
    for name in head_modules(architecture):
        weight = state.get(f"{name}.weight")
        if weight is not None:
            return int(weight.shape[0])
    return 0


def default_preprocess(architecture: str) -> Preprocess:
    """The preprocessing that timm's configuration gives for an architecture's default weights.

    Raises:
        UserError: it cannot be said as a `Preprocess`.
    """
    return preprocess_of(_config(architecture), where=architecture)


def preprocess_of(config: Mapping[str, Any], *, where: str) -> Preprocess:
    """A timm pretrained configuration as a `Preprocess`.

    `crop_mode="squash"` becomes `resize="squash"`: the whole image, without the crop.

    Raises:
        UserError: another number of channels than 3, an interpolation, crop mode or number that `Preprocess` lacks.
    """
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=dict(config))
    channels, height, width = data["input_size"]
    if channels != 3 or len(data["mean"]) != 3:
        raise UserError(f"takes {channels} channels, not the 3 of an RGB image", where=where)
    if data["interpolation"] not in INTERPOLATIONS:
        raise UserError(
            f'unknown interpolation "{data["interpolation"]}"', where=where, choices=INTERPOLATIONS
        )
    if data["crop_mode"] not in ("center", "squash"):
        raise UserError(f'unknown crop mode "{data["crop_mode"]}"', where=where, choices=("center", "squash"))
    squash = data["crop_mode"] == "squash"
    try:
        return Preprocess(
            height=height,
            width=width,
            resize="squash" if squash else "crop",
            crop_pct=1.0 if squash else data["crop_pct"],
            interpolation=data["interpolation"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(
            f"its images cannot be prepared: {field} {first['input']} ({first['msg']})", where=where
        ) from error


def _config(architecture: str) -> dict[str, Any]:
    config = get_pretrained_cfg(architecture, allow_unregistered=True)
    return dict(config.to_dict()) if config is not None else {}


def _arguments(
    architecture: str, arguments: Mapping[str, Json], preprocess: Preprocess | None, where: str
) -> dict[str, Any]:
    """`arguments` and, for networks of a fixed input size, `img_size`."""
    from timm.models import resolve_model_input_args

    if not is_model(architecture):
        raise UserError(
            f'nobody registered the architecture "{architecture}" with timm',
            where=where,
            hint="install the plugin that registers it and name its model source in --models",
        )
    if preprocess is None:
        return dict(arguments)
    size = (3, preprocess.height, preprocess.width)
    try:
        resolved = resolve_model_input_args(architecture, {"input_size": size}, **arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{architecture} refuses its input size: {error}", where=where) from error
    fixed = {"img_size": resolved["img_size"]} if "img_size" in resolved else {}
    return {**arguments, **fixed}


def _create(architecture: str, arguments: Mapping[str, Any], classes: int, where: str) -> nn.Module:
    try:
        network = timm.create_model(architecture, pretrained=False, num_classes=classes, **arguments)
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "none"
        raise UserError(
            f"timm cannot create {architecture}: {error}",
            where=where,
            hint=f"check its arguments ({given})",
        ) from error
    assert isinstance(network, nn.Module)
    return network

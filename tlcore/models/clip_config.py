"""What open_clip's configurations say of a model, and the package itself, which is the extra "clip"."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tlcore.errors import UnknownName, UserError
from tlcore.values import Preprocess

__all__ = [
    "CONFIG", "FILES", "ClipConfig", "built_in_config", "open_clip_module", "read_config", "weights_in",
]  # fmt: skip

CONFIG = "open_clip_config.json"
"""Name of the configuration in a folder or hub repository."""

FILES = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "model.safetensors",
)  # fmt: skip
"""Names under which open_clip keeps the weights, in the order of its own preference."""


@dataclass(frozen=True)
class ClipConfig:
    """What open_clip's configuration says: how to make the model, and how to prepare images (what it leaves out has
    open_clip's defaults)."""

    model: dict[str, Any]
    preprocess: dict[str, Any]

    def obstacle(self) -> str:
        """Why tlcore cannot take such a model; "" where it can."""
        text = self.model["text_cfg"].get("hf_model_name")
        if text:
            return f'its text tower is made from another hub repository ("{text}"), which is not supported'
        trunk = self.model["vision_cfg"].get("timm_model_name") or ""
        if ":" in trunk or "/" in trunk:
            return f'its image tower is made from another repository ("{trunk}"), which is not supported'
        return ""

    def preprocessing(self, where: str) -> Preprocess:
        """As open_clip prepares images to look at them (`image_transform` with is_train=False).

        "shortest" is a crop of all of the shorter side, "squash" the same; a side and its centre may differ by one
        pixel where open_clip rounds down.

        Raises:
            UserError: "longest", which pads; a number that `Preprocess` lacks.
        """
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        said = merge_preprocess_dict(PreprocessCfg(), self.preprocess)
        size = self.model["vision_cfg"].get("image_size", 224)
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        mode = said["resize_mode"] or "shortest"
        if mode not in ("shortest", "squash"):
            raise UserError(
                f'pads images (resize_mode "{mode}"), which is not supported',
                where=where,
                choices=("shortest", "squash"),
            )
        # open_clip takes bicubic for anything else, and for an image that is not square to be.
        bilinear = said["interpolation"] == "bilinear" and (mode == "squash" or height == width)
        try:
            return Preprocess(
                height=height,
                width=width,
                resize="crop" if mode == "shortest" else "squash",
                crop_pct=1.0,
                interpolation="bilinear" if bilinear else "bicubic",
                mean=_three(said["mean"]),
                std=_three(said["std"]),
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise UserError(
                f"its images cannot be prepared: {field} {first['input']} ({first['msg']})", where=where
            ) from error


def _three(given: Any) -> Any:
    return tuple(given) if isinstance(given, list | tuple) else (given,) * 3


def open_clip_module(where: str = "") -> Any:
    """The package open_clip.

    Raises:
        UserError: it is not installed; the hint says how.
    """
    try:
        import open_clip
    except ImportError as error:
        raise UserError(
            "image-text models need open_clip, which is not installed",
            where=where,
            hint='pip install "tlcore[clip]"',
        ) from error
    return open_clip


def read_config(folder: Path) -> ClipConfig:
    """The configuration in a folder.

    Raises:
        UserError: none there, or not what open_clip writes.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"no {CONFIG} in the folder",
            where=str(folder),
            hint="name a folder as open_clip saves it for the hub, or ARCHITECTURE@FILE",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"not readable as JSON: {error}", where=str(path)) from error
    model = content.get("model_cfg") if isinstance(content, dict) else None
    parts = ("vision_cfg", "text_cfg")
    if not isinstance(model, dict) or not all(isinstance(model.get(part), dict) for part in parts):
        raise UserError("must hold model_cfg with vision_cfg and text_cfg", where=str(path))
    if not isinstance(model.get("embed_dim"), int):
        raise UserError("model_cfg must say embed_dim, a whole number", where=str(path))
    preprocess = content.get("preprocess_cfg")
    return ClipConfig(model, preprocess if isinstance(preprocess, dict) else {})


def built_in_config(architecture: str) -> ClipConfig:
    """The configuration that open_clip ships for an architecture such as "ViT-B-32".

    Raises:
        UnknownName: it ships none of that name.
    """
    import difflib

    open_clip = open_clip_module()
    known = open_clip.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=8, cutoff=0.5)
        raise UnknownName("architecture of open_clip", architecture, near)
    return ClipConfig(open_clip.get_model_config(architecture), {})


def weights_in(folder: Path) -> Path:
    """The weights file in a folder with a configuration.

    Raises:
        UserError: there is none of the names in FILES.
    """
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError("no weights in the folder", where=str(folder), choices=FILES)

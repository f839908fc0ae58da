"""CLIP models of open_clip: weights, image tower and text tower. Nothing is fetched here but a tokenizer, with leave.

Weights are read as plain tensors: safetensors, or
torch files with `weights_only`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcore.errors import UserError
from tlcore.models.clip_config import CONFIG, open_clip_module
from tlcore.values import Json, Preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from tlcore.models.image_tower import ImageTower
    from tlcore.models.sizes import Size

__all__ = ["embed_texts", "image_tower", "load_clip", "tower_size"]

TEXTS = 64
"""Texts that go through the tower together."""

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
"""The text half of a model whose image half alone is wanted."""


def image_tower(
    model: Mapping[str, Any], *, weights: Path | None = None, classes: int = 0, where: str = ""
) -> ImageTower:
    """The image tower of a model in eval mode, its weights random where no file is given.

    Args:
        model: `ClipConfig.model`.

    Raises:
        UserError: as `load_clip`.
    """
    from tlcore.models.image_tower import ImageTower

    if weights is None:
        parts = {name: model[name] for name in ("embed_dim", "vision_cfg", "quick_gelu") if name in model}
        made = _create({**parts, "text_cfg": _NO_TEXT}, where)
    else:
        made = load_clip(model, weights, where=where)
    visual: Any = made.visual
    return ImageTower(visual, int(model["embed_dim"]), classes).eval()


def tower_size(model: Mapping[str, Any], preprocess: Preprocess, *, where: str = "") -> Size:
    """Parameters, multiply-accumulates and file size of the image tower, which is made without memory."""
    import torch

    from tlcore.models.cost import measure_size

    with torch.device("meta"):
        tower = image_tower(model, where=where)
    return measure_size(tower, preprocess.height, preprocess.width)


def load_clip(model: Mapping[str, Any], weights: Path, *, where: str = "") -> nn.Module:
    """The whole model in eval mode, its tensors from a file that open_clip can read and that holds no code.

    Raises:
        UserError: open_clip is not installed, cannot make the model, or the file does not fit it.
    """
    from tlcore.models.weights import SUFFIXES

    if weights.suffix not in SUFFIXES:
        raise UserError(
            f'weights named "*{weights.suffix}" are not read',
            where=str(weights),
            choices=[f"*{suffix}" for suffix in SUFFIXES],
        )
    network = _create(model, where)
    try:
        open_clip_module(where).load_checkpoint(network, str(weights), strict=True, weights_only=True)
    except Exception as error:  # a damaged or hostile file may fail anywhere in the reader
        lines = str(error).split("\n") if str(error) else [type(error).__name__]
        raise UserError(
            f"the weights cannot be loaded: {' '.join(line.strip() for line in lines[:3])[:300]}",
            where=f"{where} ({weights.name})" if where else str(weights),
            hint="check that configuration and weights belong together; only tensors are read, never code",
        ) from error
    return network.eval()


def embed_texts(
    network: nn.Module, model: Mapping[str, Any], name: str, texts: Sequence[str], *, fetch: bool = False
) -> NDArray[np.float32]:
    """Embeddings [p, d] of unit length. A text longer than the model's context is cut.

    Args:
        network: of `load_clip`.
        name: what `open_clip.get_tokenizer` knows the model by: "local-dir:FOLDER", or an architecture.
        fetch: whether a tokenizer that is neither shipped with open_clip nor in the hub cache may be fetched.

    Raises:
        UserError: its tokenizer is not here.
    """
    import numpy as np
    import torch

    clip: Any = network
    options = {"local_files_only": not fetch} if model["text_cfg"].get("hf_tokenizer_name") else {}
    try:
        tokenizer = open_clip_module().get_tokenizer(name, **options)
    except Exception as error:  # transformers may raise anything
        raise UserError(
            f"its tokenizer cannot be loaded: {(str(error) or type(error).__name__).splitlines()[0][:200]}",
            where=name,
            hint="put the tokenizer's files beside the weights, as open_clip saves them",
        ) from error
    found = [np.zeros((0, int(model["embed_dim"])), dtype=np.float32)]
    with torch.inference_mode():
        for start in range(0, len(texts), TEXTS):
            tokens = tokenizer(list(texts[start : start + TEXTS]))
            found.append(clip.encode_text(tokens, normalize=True).float().cpu().numpy())
    return np.concatenate(found)


def _create(model: Mapping[str, Any], where: str) -> nn.Module:
    """The model with random weights, of the class that `open_clip.create_model` takes."""
    open_clip = open_clip_module(where)
    config: dict[str, Json] = copy.deepcopy(dict(model))
    vision = config["vision_cfg"]
    if isinstance(vision, dict) and "timm_model_pretrained" in vision:
        vision["timm_model_pretrained"] = False  # would be fetched
    if not config.pop("custom_text", False):
        kind = open_clip.CLIP
    else:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        made: nn.Module = kind(**config)
    except Exception as error:  # a configuration may say anything
        raise UserError(
            f"open_clip cannot make the model: {(str(error) or type(error).__name__).splitlines()[0][:200]}",
            where=where,
            hint=f"check {CONFIG}",
        ) from error
    return made

"""Image-text models of open_clip, small enough for a test, saved as open_clip saves them for the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 2, 1], "width": 8, "head_width": 16}
TIMM = {"image_size": 64, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
TIMM_PRETRAINED = {**TIMM, "timm_model_pretrained": True}
TOKENS = {**VIT, "output_tokens": True}
PREPROCESS = {
    "mean": [0.4, 0.5, 0.6],
    "std": [0.3, 0.25, 0.2],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def configuration(vision: dict[str, Any] = VIT, **more: Any) -> dict[str, Any]:
    return {"embed_dim": 16, "vision_cfg": dict(vision), "text_cfg": dict(TEXT), **more}


def save_tiny_clip(
    folder: Path,
    model: dict[str, Any] | None = None,
    preprocess: dict[str, Any] | None = None,
    file: str = "open_clip_model.safetensors",
) -> Path:
    """A folder with a configuration and random weights."""
    model = model or configuration()
    arguments = json.loads(json.dumps(model))
    custom = arguments.pop("custom_text", False)
    arguments["vision_cfg"].pop("timm_model_pretrained", None)
    torch.manual_seed(7)
    network = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**arguments)
    for parameter in network.parameters():  # an untouched ResNet ends its blocks in zeros
        parameter.data += 0.01 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_cfg": model, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    return folder

"""Narrow MobileNets under names of their own in timm's registry. Importing this module registers them.

MobileNetV1 (Howard et al. 2017, section 3.3: width multiplier) at 0.25, 0.5 and 0.75, and MobileNetEdgeTPU at 0.75.
They were trained with TensorFlow's SAME padding, so that is their default here.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, _gen_mobilenet_edgetpu, _gen_mobilenet_v1

__all__ = [
    "NARROW",
    "mobilenet_edgetpu_075",
    "mobilenetv1_025",
    "mobilenetv1_050",
    "mobilenetv1_075",
]

HALF, IMAGENET_MEAN, IMAGENET_STD = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _config(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": mean,
        "std": std,
        "first_conv": "conv_stem",
        "classifier": "classifier",
        "license": "apache-2.0",
    }


# timm looks for this name in the module of a registered function.
default_cfgs = generate_default_cfgs(
    {
        "mobilenetv1_025.untrained": _config(HALF, HALF),
        "mobilenetv1_050.untrained": _config(HALF, HALF),
        "mobilenetv1_075.untrained": _config(HALF, HALF),
        "mobilenet_edgetpu_075.untrained": _config(IMAGENET_MEAN, IMAGENET_STD),
    }
)

NARROW = frozenset(default_cfgs)
"""Names that this module registers."""


@register_model  # type: ignore[untyped-decorator]
def mobilenetv1_025(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV1, a quarter of the width."""
    return _gen_mobilenet_v1("mobilenetv1_025", 0.25, pretrained=pretrained, **_same_padding(kwargs))


@register_model  # type: ignore[untyped-decorator]
def mobilenetv1_050(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV1, half of the width."""
    return _gen_mobilenet_v1("mobilenetv1_050", 0.5, pretrained=pretrained, **_same_padding(kwargs))


@register_model  # type: ignore[untyped-decorator]
def mobilenetv1_075(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetV1, three quarters of the width."""
    return _gen_mobilenet_v1("mobilenetv1_075", 0.75, pretrained=pretrained, **_same_padding(kwargs))


@register_model  # type: ignore[untyped-decorator]
def mobilenet_edgetpu_075(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """MobileNetEdgeTPU, three quarters of the width."""
    return _gen_mobilenet_edgetpu(
        "mobilenet_edgetpu_075", 0.75, pretrained=pretrained, **_same_padding(kwargs)
    )


def _same_padding(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"pad_type": "same", **kwargs}

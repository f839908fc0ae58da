"""The image half of a CLIP model, as a network that tlcore can rank, measure, train and export."""

from __future__ import annotations

import re
from typing import Any, cast

from torch import Tensor, nn

from tlcore.errors import PluginError

__all__ = ["ImageTower"]

Matcher = dict[str, Any]

_REST = [(r"^visual\.", (99999,))]
"""timm's sign for what belongs to the layer before it: the final norm, the projection, the pooling."""


class ImageTower(nn.Module):
    """float images [n, 3, height, width] -> features [n, d] of the joint space, as they are: not of unit length.

    Has the methods of a timm network that tlcore calls: `forward_features`, `forward_head`, `get_classifier`,
    `group_matcher`.

    Args:
        visual: image tower of an open_clip model.
        width: d.
        classes: outputs of a fresh linear head on the features; 0: no head, the features come out.
    """

    def __init__(self, visual: nn.Module, width: int, classes: int = 0) -> None:
        super().__init__()
        self.visual = visual
        self.num_features = width
        self.num_classes = classes
        self.head: nn.Module = nn.Linear(width, classes) if classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        found = self.visual(images)
        # Towers made for captioning (CoCa) give their patches beside the pooled features.
        return cast(Tensor, found[0] if isinstance(found, tuple) else found)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else cast(Tensor, self.head(features))

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def group_matcher(self, coarse: bool = False) -> Matcher:
        """The layers from the input on, in timm's notation, for `timm.models.group_parameters`.

        Of a ViT each block is a layer and a stage. Of a ResNet a block is a layer, and with `coarse` a stage is
        one of its four. What follows the last one belongs to it. A tower that timm built is parted by timm.

        Raises:
            PluginError: a tower that does not say what its layers are.
        """
        if hasattr(self.visual, "transformer"):
            return {
                "stem": r"^visual\.(?:conv1|class_embedding|positional_embedding|ln_pre)",
                "blocks": [(r"^visual\.transformer\.resblocks\.(\d+)", None), *_REST],
            }
        if hasattr(self.visual, "layer4"):
            block = r"^visual\.layer(\d+)" if coarse else r"^visual\.layer(\d+)\.(\d+)"
            return {"stem": r"^visual\.(?:conv|bn)\d", "blocks": [(block, None), *_REST]}
        matcher = getattr(getattr(self.visual, "trunk", None), "group_matcher", None)
        if matcher is None:
            raise PluginError(
                f"a {type(self.visual).__name__} does not say what its layers are",
                hint="train all of it, or the head, and with the same rate everywhere",
            )
        inner = {name: _below_trunk(spec) for name, spec in matcher(coarse=coarse).items()}
        return {**inner, "rest": _REST}


def _below_trunk(spec: Any) -> Any:
    """A matcher of timm's for names that start with "visual.trunk."."""
    if spec is None:
        return None
    if isinstance(spec, str):
        pattern = re.sub(r"(?<!\[)\^", "", spec)  # anchors, not the sign of "none of these"
        return rf"^visual\.trunk\.(?:{pattern})"
    return [(_below_trunk(pattern), suffix) for pattern, suffix in spec]

"""Text as artifacts take it: keys, and cells of Markdown tables."""

from __future__ import annotations

import re

__all__ = ["cell", "key"]


def key(*parts: str) -> str:
    """An artifact key: lower-case letters, digits and single dashes only; never empty.

    >>> key("score", "timm:ResNet_18")
    'score-timm-resnet-18'
    """
    return "-".join(filter(None, re.split(r"[^a-z0-9]+", "-".join(parts).lower()))) or "artifact"


def cell(text: str) -> str:
    """Text of a stranger inside a Markdown table: no markup, no new cell, no new row."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&])", r"\\\1", " ".join(text.split()))

"""Tiny inputs for the tests of plugin authors: real values of every kind that a strategy gets to see.

from tlcore.testing import tiny_evidence

def test_my_score_is_finite():
    assert math.isfinite(MyScorer().score(tiny_evidence()))
"""

from __future__ import annotations

from tlcore.testing.arrays import tiny_evidence, tiny_outputs, tiny_task
from tlcore.testing.images import tiny_images

__all__ = ["tiny_evidence", "tiny_images", "tiny_outputs", "tiny_task"]

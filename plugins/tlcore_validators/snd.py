"""Soft neighbourhood density: choose the checkpoint on whose output each target image has many close neighbours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import UserError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Validator, ValidatorOutputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 512
"""Rows of the similarity matrix that are held at once."""


def soft_neighbourhood_density(rows: NDArray[np.floating], temperature: float) -> float:
    """Mean over i of the entropy of softmax_j(cos(x_i, x_j) / temperature), j != i, in nats: 0 … log(n - 1) (Saito et
    al. 2021, section 3).

    rows: float [n, K], the softmax outputs. 0 for n < 3, where an image has at most one neighbour.
    """
    import numpy as np

    if len(rows) < 3:
        return 0.0
    values = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(lengths > 0, lengths, 1.0)
    total = 0.0
    for start in range(0, len(unit), BLOCK):
        logits = unit[start : start + BLOCK] @ unit.T / temperature
        own = np.arange(len(logits))
        logits[own, start + own] = -np.inf
        logits -= logits.max(axis=1, keepdims=True)
        weights = np.exp(logits)
        logits[own, start + own] = 0.0  # 0 log 0 = 0
        mass = weights.sum(axis=1)
        total += float((np.log(mass) - (weights * logits).sum(axis=1) / mass).sum())
    return total / len(unit)


class SoftNeighbourhoodDensity(Validator):
    """Entropy of each target image's similarities to the others, on the softmax outputs as in the reference code.

    Highest where all predictions are alike, so that a collapse onto one class looks best: the authors apply it to
    checkpoints that are trained on the source throughout.
    """

    card: ClassVar[Card] = Card(
        name="snd",
        summary="Soft neighbourhood density of the target's softmax outputs; blind to a collapse onto one class",
        reference="Saito et al. 2021, section 3, arXiv:2108.10860",
        traits=frozenset({"target-data"}),
    )

    temperature: float = Field(
        0.05, ge=0.001, le=100, description="of the softmax over similarities; 0.05 in the paper"
    )
    limit: int = Field(
        2000,
        ge=3,
        le=20_000,
        description="target images that are compared with each other, the same ones each time",
    )

    def score(self, outputs: ValidatorOutputs) -> float:
        import numpy as np

        rows = outputs.target_probabilities
        if not len(rows):
            raise UserError("there is no target image", where="snd")
        if len(rows) > self.limit:
            rows = rows[np.sort(np.random.default_rng(0).permutation(len(rows))[: self.limit])]
        return soft_neighbourhood_density(rows, self.temperature)

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float]:
        compared = min(len(outputs.target_probabilities), self.limit)
        return 0.0, math.log(max(1, compared - 1))


@hookimpl
def tlcore_validators() -> list[type[Validator]]:
    return [SoftNeighbourhoodDensity]

"""MCC: predictions on the target that do not confuse one class with another."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Adapter, Card, TrainTask
from tlcore.training.objectives import both_domains
from tlcore.training.plan import Batch, Losses, Objective
from tlcore.training.trained_adapter import TrainedAdapter

if TYPE_CHECKING:
    from torch import Tensor

    from tlcore.training.network import Network


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Mean off-diagonal mass of the row-normalised class confusion matrix (Jin et al. 2020, eq. 2 to 8).

    logits: float [n, K] of one batch. P = softmax(logits / temperature) (eq. 2); each image weighs
    w = 1 + exp(-H(P_i)), scaled to the mean 1 (eq. 4 and 5); C = P' diag(w) P (eq. 6); rows of C sum to one
    (eq. 7). A scalar from 0 (every image certain) to 1 - 1/K (all classes alike); 0 for a single class.
    As in the authors' code, no gradient flows through the weights.
    """
    import torch

    log_p = torch.log_softmax(logits / temperature, dim=1)
    p = log_p.exp()
    with torch.no_grad():
        weights = 1 + torch.exp((p * log_p).sum(1, keepdim=True))
        weights = weights / weights.mean()
    confusion = (weights * p).T @ p
    # A class that no image of the batch gives any mass has an empty row: nothing is confused with it.
    rows = confusion / confusion.sum(1, keepdim=True).clamp_min(1e-12)
    return (rows.sum() - rows.diagonal().sum()) / logits.shape[1]


class MccObjective(Objective):
    """Cross-entropy on the source plus weight times the class confusion on the target (Jin et al. 2020, eq. 9)."""

    def __init__(self, weight: float, temperature: float) -> None:
        self.weight, self.temperature = weight, temperature

    def loss(self, network: Network, batch: Batch) -> Losses:
        seen = both_domains(network, batch, "MCC")
        confusion = class_confusion(seen.target_logits, self.temperature)
        total = seen.supervised + self.weight * confusion
        return {"total": total, "source": seen.supervised.detach(), "confusion": confusion.detach()}


class Mcc(TrainedAdapter):
    """Make the predictions on the target distinct; no alignment of domains, no module of its own.

    The paper evaluates closed, partial, multi-source and multi-target adaptation with the same loss. Its code trains at the
    rate 0.005; the common 0.01 gains more on digits and as much on photographs (DECISIONS, 22).
    """

    card: ClassVar[Card] = Card(
        name="mcc",
        summary="Minimum class confusion: target predictions that do not waver between pairs of classes",
        reference="Jin et al. 2020, eq. 2 to 9",
        traits=frozenset({"source-data", "target-data", "partial"}),
    )

    weight: float = Field(
        1.0, ge=0, le=1e3, description="of the class confusion, beside the source's cross-entropy"
    )
    temperature: float = Field(
        2.5,
        ge=0.1,
        le=100,
        description="softens the probabilities before they are compared; 2 to 3 in the paper",
    )

    def objective(self, task: TrainTask) -> MccObjective:
        return MccObjective(self.weight, self.temperature)


@hookimpl
def tlcore_adapters() -> list[type[Adapter]]:
    return [Mcc]

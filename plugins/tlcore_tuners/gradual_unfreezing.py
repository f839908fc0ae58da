"""Gradual unfreezing: the head, then the last stages one after the other, then everything."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner, probe
from tlcore.training.plan import HeadFit, Phase


def shared_epochs(epochs: int, phases: int) -> tuple[int, ...]:
    """Epochs of each phase, at least one: all the same but for the last, which takes the rest.

    With fewer epochs than phases only as many phases as epochs are left.
    """
    count = min(phases, epochs)
    each = epochs // count
    return (*[each] * (count - 1), epochs - each * (count - 1))


class GradualUnfreezing(NetworkTuner):
    """Unfreeze from the head downwards, so that no layer moves before those above it fit.

    The head is probed in closed form, which stands for the paper's first epoch; then the backbone's last stage moves,
    the last two, …, and in the last phase everything. Each phase starts from the best epoch of the one before. The
    paper's discriminative rates divide by 2.6 from layer group to layer group; with three or four of timm's layers in
    a stage that is about 0.75 from layer to layer.
    """

    card: ClassVar[Card] = Card(
        name="gradual-unfreezing",
        summary="From the probe, unfreeze stage after stage downwards, lower layers at lower rates",
        reference="Howard & Ruder 2018 (ULMFiT), sections 3.2 (discriminative fine-tuning) and 3.3 (gradual unfreezing)",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    epochs: int = Field(8, ge=1, le=1000, description="passes over the training images, shared by the phases")
    stages: int = Field(
        4, ge=1, le=64, description="phases: 1 to stages - 1 of the backbone's last stages, then everything"
    )
    layer_decay: float = Field(
        0.75,
        ge=0.3,
        le=1,
        description="rate of a layer over that of the layer above it; 1: the same everywhere",
    )
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def phases(self, task: TrainTask) -> tuple[Phase | HeadFit, ...]:
        objective = self.objective(task)
        shares = shared_epochs(self.epochs, self.stages)
        parts = [f"last:{count}" for count in range(1, len(shares))] + ["backbone"]
        unfrozen = [
            self.phase(f"unfreeze {part}", objective, self.groups(part), epochs=epochs)
            for part, epochs in zip(parts, shares, strict=True)
        ]
        return (probe(task), *unfrozen)


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [GradualUnfreezing]

"""Distillation: learn from the probabilities of a better network as well as from the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner
from tlcore.training.objectives import Supervised, labelled
from tlcore.training.plan import Batch, Losses, Setup

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlcore.training.network import Network


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(logits / T)), mean over images (Hinton, Vinyals & Dean 2015, section 2).

    logits, teacher: float [n, K]. A scalar >= 0 in nats, 0 where both agree; no gradient flows into the teacher. T^2
    keeps the gradient's size about the same at every temperature.
    """
    from torch.nn import functional

    student = functional.log_softmax(logits / temperature, dim=1)
    known = functional.log_softmax(teacher.detach() / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, known, reduction="batchmean", log_target=True)


class DistillObjective(Supervised):
    """(1 - weight) times the supervised loss + weight times the distillation loss."""

    def __init__(self, smoothing: float, balanced: bool, weight: float, temperature: float) -> None:
        super().__init__(smoothing, balanced=balanced)
        self.weight, self.temperature = weight, temperature

    def setup(self, setup: Setup) -> nn.Module:
        import torch
        from torch import nn

        super().setup(setup)
        expected = (setup.task.source_train, len(setup.task.classes))
        if setup.teacher is None:
            raise PluginError(
                "distillation needs a teacher: a network trained on the same labels",
                hint="train one first, or choose lp-ft",
            )
        teacher = torch.as_tensor(setup.teacher, dtype=torch.float32)
        if tuple(teacher.shape) != expected or not torch.isfinite(teacher).all():
            raise PluginError(
                f"the teacher's logits are {list(teacher.shape)}, or not finite; finite {list(expected)} expected"
            )
        self.known = nn.Module()  # so that the host moves it to the device; it is made anew after a kill
        self.known.register_buffer("logits", teacher, persistent=False)
        return self.known

    def loss(self, network: Network, batch: Batch) -> Losses:
        view = labelled(batch)
        logits = network(view.inputs)
        teacher = self.known.get_buffer("logits")
        fit = self.supervised(logits, batch)
        distilled = distillation_loss(logits, teacher[view.index], self.temperature)
        if view.share is not None and view.others_index is not None:
            mixed_in = distillation_loss(logits, teacher[view.others_index], self.temperature)
            distilled = view.share * distilled + (1 - view.share) * mixed_in
        return {
            "total": (1 - self.weight) * fit + self.weight * distilled,
            "fit": fit.detach(),
            "distilled": distilled.detach(),
        }


class Distill(NetworkTuner):
    """Fine-tune everything, from the probe, towards labels and a teacher's probabilities at a high temperature.

    For a small network that is to do what a larger one can. The teacher has seen each image once, as it is, and answers
    for every variant of it: prefer weak augmentation (Beyer et al. 2022, section 3.1).
    """

    card: ClassVar[Card] = Card(
        name="distill",
        summary="Fine-tune a small network on the labels and on a larger trained network's probabilities",
        reference="Hinton, Vinyals & Dean 2015 (distilling the knowledge in a neural network), section 2",
        traits=frozenset({"target-labels", "teacher"}),
    )

    probed: ClassVar[bool] = True
    searched: ClassVar[tuple[str, ...]] = ("lr", "head_factor", "layer_decay", "weight", "temperature")

    weight: float = Field(
        0.5, ge=0, le=1, description="of the teacher's probabilities over that of the labels"
    )
    temperature: float = Field(4.0, ge=1, le=50, description="that both networks' logits are divided by")
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def objective(self, task: TrainTask) -> DistillObjective:
        return DistillObjective(
            self.smoothing, self.class_weights == "balanced", self.weight, self.temperature
        )


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Distill]

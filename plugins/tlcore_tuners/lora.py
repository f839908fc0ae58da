"""LoRA: low-rank changes of the backbone's matrices, folded into them at the end."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tlcore.errors import PluginError
from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.network_tuner import NetworkTuner, probe
from tlcore.training.plan import HeadFit, Phase, TrainPlan, Transform

if TYPE_CHECKING:
    from torch import nn

    from tlcore.training.network import Network

Targets = Literal["attention", "linear", "all"]


def adapted_layers(backbone: nn.Module, targets: Targets) -> tuple[str, ...]:
    """Names of the layers that get an adapter.

    "attention": linear layers inside a module called attn or attention; "linear": every linear layer; "all": those, and
    convolutions that the sum with a low-rank one can be folded into: not grouped (depthwise), dilated, or of a kind that
    changes its filters before it uses them (weight standardisation).

    Raises:
        PluginError: there is none.
    """
    from timm.layers import Conv2dSame
    from torch import nn

    def fits(name: str, layer: nn.Module) -> bool:
        if type(layer) is nn.Linear:
            return targets != "attention" or bool(re.search(r"(^|[._])attn|attention", name))
        if targets != "all" or type(layer) not in (nn.Conv2d, Conv2dSame):
            return False
        assert isinstance(layer, nn.Conv2d)
        return layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"

    found = tuple(name for name, layer in backbone.named_modules() if fits(name, layer))
    if not found:
        raise PluginError(
            f'a {type(backbone).__name__} has no layer for an adapter on "{targets}"',
            hint="use targets = all" if targets != "all" else "use norm-only or lp-ft",
        )
    return found


@dataclass(frozen=True)
class LowRank(Transform):
    """W becomes W + alpha / rank B A in every adapted layer, A [rank, in] drawn, B [out, rank] zero at the start (Hu et
    al. 2022, section 4.1); of a convolution A is one with `rank` filters and B one of size 1 x 1. Through peft."""

    rank: int
    alpha: float
    dropout: float
    targets: Targets

    def apply(self, network: Network) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise PluginError("LoRA needs the package peft", hint="pip install peft") from None

        names = adapted_layers(network.backbone, self.targets)
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout,
            # As one expression: a list is matched by the ends of names.
            target_modules="|".join(re.escape(name) for name in names),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about models that are not from transformers
            inject_adapter_in_model(config, network.backbone)

    def interpolates(self, name: str) -> bool:
        """B starts at zero: a B A is the straight line, whatever A was at first."""
        return "lora_A" not in name

    def merge(self, network: Network) -> None:
        from peft.tuners.lora import LoraLayer

        backbone = network.backbone
        for name, layer in list(backbone.named_modules()):
            if isinstance(layer, LoraLayer):
                try:
                    layer.merge(safe_merge=True)
                except ValueError as error:  # what it raises where the sum is not finite
                    raise PluginError(f"the adapter of {name} cannot be folded in: {error}") from None
                parent, _, own = name.rpartition(".")
                setattr(backbone.get_submodule(parent), own, layer.get_base_layer())
        if hasattr(backbone, "peft_config"):
            del backbone.peft_config


class Lora(NetworkTuner):
    """From the probe, learn low-rank adapters of the frozen backbone's layers, and the head.

    A few percent of the parameters; the exported network is as large and as fast as before. Adapters bear about ten
    times the rate of full fine-tuning; the fitted head moves at the rate that LP-FT gives it.
    """

    card: ClassVar[Card] = Card(
        name="lora",
        summary="From the probe, learn low-rank adapters of linear layers and convolutions, folded in at the end",
        reference="Hu et al. 2022 (LoRA), section 4.1; by peft",
        traits=frozenset({"target-labels", "regression", "multi-label"}),
    )

    searched: ClassVar[tuple[str, ...]] = ("lr", "head_factor", "rank", "dropout", "layer_decay")

    lr: float = Field(1e-3, ge=1e-6, le=0.01, description="peak learning rate of the adapters (AdamW)")
    head_factor: float = Field(0.1, ge=0.1, le=100, description="the head's rate over the adapters'")
    rank: int = Field(8, ge=1, le=256, description="of the change of each layer")
    alpha: float = Field(16.0, gt=0, le=1024, description="the change counts alpha / rank")
    dropout: float = Field(0.1, ge=0, lt=1, description="of the adapters' inputs while training")
    targets: Targets = Field(
        "all",
        description="attention, linear: linear layers in attention or everywhere; all: convolutions (not grouped) too",
    )
    frozen_statistics: bool = Field(True, description="batch norm keeps the statistics of pretraining")

    def phases(self, task: TrainTask) -> tuple[Phase | HeadFit, ...]:
        return probe(task), self.phase(
            "tune adapters", self.objective(task), self.groups("backbone.*.lora_*")
        )

    def plan(self, task: TrainTask) -> TrainPlan:
        return TrainPlan(
            self.phases(task), transform=LowRank(self.rank, self.alpha, self.dropout, self.targets)
        )


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [Lora]

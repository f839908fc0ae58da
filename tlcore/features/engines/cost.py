"""What an engine will take for n images: counted work times measured constants. Nothing is timed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlcore.features.engines.hardware import Bf16, Hardware
from tlcore.features.engines.work import Work

__all__ = ["THREADS", "Rates", "cheapest", "rates_of", "seconds"]

THREADS = 2
"""For which engines are compared, however many run: a cluster's workers have fewer threads than one process, and the
choice, which changes scores, must not hang on that. Few, so that setting up is not overrated where threads are few;
with t threads an ill choice costs the set-up times |1 - 2 / t| at most."""


@dataclass(frozen=True)
class Rates:
    """Seconds of one thread per billion multiply-accumulates (dense … attention) or elements (norm, elementwise)
    of tlcore.features.engines.work, and seconds to set the engine up: for a network and for each of its
    operators. Setting up does not use threads.
    """

    dense: float
    depthwise: float
    linear: float
    attention: float
    norm: float
    elementwise: float
    setup: float
    setup_operator: float

    def image(self, work: Work) -> float:
        """Seconds of one thread for one image."""
        return (
            self.dense * work.dense
            + self.depthwise * work.depthwise
            + self.linear * work.linear
            + self.attention * work.attention
            + self.norm * work.norm
            + self.elementwise * work.elementwise
        )


# Fitted by benchmarks/engine_costs.py to ten networks at 224 px (resnet18 and 50, mobilenetv3_small_100,
# mobilenetv2_100, efficientnet_b0, regnety_002, vit_tiny, deit_small, mixer_s32, convnext_atto) on one thread of an
# AMD EPYC of the Zen 4 generation (AVX-512; AVX512_BF16 without AMX), torch 2.15, onnxruntime 1.31: predictions lie
# within 0.69 and 1.34 of what was measured. A 0 is work that showed no cost of its own beside the others'. Other
# processors are faster or slower at all of it; the choice depends on how the engines compare with each other.
FLOAT32: Mapping[str, Rates] = {
    "eager": Rates(0.0178, 0.0178, 0.0204, 0.0078, 0.694, 1.59, 0.08, 0.0001),
    "folded": Rates(0.0177, 0.0, 0.0225, 0.0019, 0.0, 1.39, 0.05, 0.0004),
    "onnxruntime": Rates(0.0179, 0.0, 0.0226, 0.0454, 0.0, 0.81, 2.94, 0.0173),
    # resnet18, mobilenetv3_small, efficientnet_b0 and vit_tiny: between 0.9 and 1.1 of "folded".
    "compiled": Rates(0.0177, 0.0, 0.0225, 0.0019, 0.0, 1.39, 14.1, 0.126),
}
BFLOAT16: Mapping[str, Rates] = {
    "bf16": Rates(0.0083, 0.0514, 0.0091, 0.0201, 0.0, 0.776, 0.05, 0.0006),
    # The first four of the ten; products and attention from vit_tiny alone.
    "compiled": Rates(0.0080, 0.0, 0.0091, 0.0330, 0.0, 0.759, 14.1, 0.126),
}
MATRIX_UNIT = 0.35
"""Time of dense convolutions, matrix products and attention in bfloat16 with a matrix unit (AMX), relative to
AVX512_BF16. An assumption: AMX multiplies 8 times as fast, of which memory leaves about a third."""


def rates_of(engine: str, bf16: Bf16) -> Rates:
    """The constants of an engine on a CPU."""
    if bf16 == "none" or engine not in BFLOAT16:
        return FLOAT32[engine]
    rates = BFLOAT16[engine]
    if bf16 == "avx512":
        return rates
    return Rates(
        dense=rates.dense * MATRIX_UNIT,
        depthwise=rates.depthwise,
        linear=rates.linear * MATRIX_UNIT,
        attention=rates.attention * MATRIX_UNIT,
        norm=rates.norm,
        elementwise=rates.elementwise,
        setup=rates.setup,
        setup_operator=rates.setup_operator,
    )


def seconds(engine: str, work: Work, images: int, hardware: Hardware, *, threads: int = THREADS) -> float:
    """Set-up and `images` images on the CPU: setup + setup_operator * operators + images * image / threads."""
    rates = rates_of(engine, hardware.bf16)
    return rates.setup + rates.setup_operator * work.operators + images * rates.image(work) / threads


def cheapest(engines: Sequence[str], work: Work, images: int, hardware: Hardware) -> str:
    """The engine of least estimated time; of equals the first.

    Only the CPU has constants. Elsewhere the answer is bf16, or folded where the device has none: compiling
    or exporting is a matter of minutes that a GPU rarely gives back.
    """
    if hardware.device != "cpu":
        return "bf16" if "bf16" in engines else "folded"
    return min(engines, key=lambda engine: seconds(engine, work, images, hardware))

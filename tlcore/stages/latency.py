"""The stage that measures one candidate's latency."""

from __future__ import annotations

from typing import cast

from tlcore.models.latency import Latency, measure_latency
from tlcore.protocols import ModelSource
from tlcore.stages.base import StageContext
from tlcore.stages.tables import preprocess_of
from tlcore.values import Candidate

__all__ = ["latency"]


def latency(context: StageContext) -> Latency:
    """Milliseconds for one image by ONNX Runtime; no weights are loaded.

    Options: candidate, threads, processor (the machine's: a result holds for its kind alone). Strategy: source.
    """
    candidate = Candidate.model_validate(context.option("candidate"))
    context.progress(0, 0, "measuring the latency")
    source = cast(ModelSource, context.build("source"))
    network = source.build(candidate, classes=0, pretrained=False)
    return measure_latency(
        network, preprocess_of(candidate), threads=context.option("threads"), where=candidate.name
    )

"""Zero-shot classification: a head made of class names, no label read."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, TrainTask, Tuner
from tlcore.training.plan import HeadFit, HeadProblem, Solved, TrainPlan
from tlcore.training.text_tuner import Prompts, TextTuner, text_classifier, unit_head

__all__ = ["ZeroShot", "zero_shot_head"]


def zero_shot_head(problem: HeadProblem, *, prompts: Prompts, scale: float) -> Solved:
    """logits = scale * cos(image, class), the class being the mean direction of its texts (Radford et al. 2021, section
    3.1.4). The labels are not looked at.

    Raises:
        UserError, PluginError: as `text_classifier`.
    """
    weight = text_classifier(problem, prompts, scale)
    return unit_head(weight, np.zeros(len(weight)), {"texts": float(sum(map(len, prompts)))})


class ZeroShot(TextTuner):
    """Class names put into sentences, embedded by the text tower, compared with images; seconds."""

    card: ClassVar[Card] = Card(
        name="zero-shot",
        summary="Class names and descriptions as the head, for image-text models; reads no label",
        reference="Radford et al. 2021, section 3.1.4; descriptions: Menon & Vondrick 2023, section 2",
        traits=frozenset({"text"}),
    )

    def plan(self, task: TrainTask) -> TrainPlan:
        fit = partial(zero_shot_head, prompts=self.prompts(task), scale=self.scale)
        return TrainPlan((HeadFit("zero-shot", fit),))


@hookimpl
def tlcore_tuners() -> list[type[Tuner]]:
    return [ZeroShot]

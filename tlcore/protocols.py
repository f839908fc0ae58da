"""What a strategy is, one abstract class per kind.

A strategy is a small frozen pydantic class. Its fields are its options: typed, bounded, described
(command-line help and the parameter form are made from them). Its `card` says who it is. The host
owns loops, devices, seeds, files and progress; a strategy returns values.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from tlcore.errors import UserError
from tlcore.values import Candidate, DataReport, Dataset, Exported, Preprocess, Task

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from tlcore.features.moments import Moments
    from tlcore.features.regression import RegressionMoments
    from tlcore.training.network import Network
    from tlcore.training.plan import TrainPlan

__all__ = [
    "KINDS", "Adapter", "Card", "CheckLimits", "DataCheck", "DataSource", "Evidence", "Exporter", "ExportJob",
    "LabelSets", "ModelSource", "Scorer", "Strategy", "TrainTask", "Tuner", "Validator", "ValidatorOutputs",
]  # fmt: skip


@dataclass(frozen=True)
class Card:
    """A strategy's identity.

    Attributes:
        name: what a person types; lower case, words joined by "-".
        summary: one line.
        reference: paper and equation, or the specification it follows.
        licence: SPDX name of the strategy's licence.
        api: the hook API it was written for (`tlcore.hookspecs.HOOK_API`).
        traits: what it needs: "features", "folds", "source-probabilities" (scorers); "source-data",
            "target-data", "target-labels" (adapters, tuners); "batch-norm" (adapters: layers of that kind in the
            backbone); "source-head" (tuners: the layer that pretraining classified with), "teacher" (tuners: a better
            network trained on the same labels), "text" (tuners: a model with a text tower, which model sources of
            this trait have), "random-start" (tuners: random weights instead of pretrained ones). What it promises:
            "regression", "multi-label" (tuners: sound for such labels as well; scorers: "regression" alone, for those
            that read `Evidence.regression`, which holds tags too); "rotation-invariant" (scorers: the same score for
            F Q, Q orthogonal; its spread then costs far less); "partial", "open" (adapters: sound where the target
            lacks classes of the source, or has classes that the source lacks). What it warns of: "costly" (scorers: far
            dearer than a few matrix products; asked again on small subsets alone, so that larger sets of images get no
            spread for it); "target-only" (adapters: the network they leave is for target images alone, and its accuracy on
            source images says nothing about it).
    """

    name: str
    summary: str
    reference: str
    licence: str = "Apache-2.0"
    api: int = 1
    traits: frozenset[str] = frozenset()


class Strategy(BaseModel):
    """Base of every strategy: options are fields, unknown options are refused, instances are frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    card: ClassVar[Card]


@dataclass(frozen=True)
class CheckLimits:
    """Bounds for a data check. max_pixels: width x height above which a file is not decoded."""

    max_pixels: int = 100_000_000
    min_images_per_class: int = 2


class DataSource(Strategy):
    """From a place that a person names to a table of images. Must have a field `path: str`."""

    @abstractmethod
    def load(self) -> Dataset:
        """The table as it is: unknown splits and labels stay null, no file is decoded.

        Raises:
            UserError: nothing there, unreadable manifest, a path outside the root, duplicate ids.
        """

    def depends_on(self) -> tuple[str, ...] | None:
        """Files and folders that `load` reads: while none of them changes it finds the same. None: cannot say.

        Where all sources of a run can say, a ranking of unchanged files is shown again without being worked out.
        """
        return None


class DataCheck(Strategy):
    """A pure look at a table and its files; findings are values, never exceptions."""

    @abstractmethod
    def check(self, dataset: Dataset, limits: CheckLimits) -> DataReport: ...


class ModelSource(Strategy):
    """Lists candidates and builds them. Must have a field `spec: str`: what follows "NAME:" in --models."""

    @abstractmethod
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates the spec stands for; those that cannot take part carry `skipped` with the remedy.

        Raises:
            UserError: the spec names nothing.
        """

    def listing(self) -> tuple[Candidate, ...]:
        """`candidates` for a person who looks around: nothing is asked of a network, none is too many, and one whose
        weights are not here has its cost too, beside `skipped`.

        Raises:
            UserError: the spec names nothing.
        """
        return self.candidates()

    def depends_on(self) -> tuple[str, ...] | None:
        """Files and folders that `candidates` and `build` read, as for data sources. None: cannot say."""
        return None

    @abstractmethod
    def build(
        self, candidate: Candidate, *, classes: int | None = None, pretrained: bool = True
    ) -> nn.Module:
        """The network of `candidate`, in eval mode: one of timm, or one with the same methods (`forward_features`,
        `forward_head`, `get_classifier`, and `group_matcher` where its layers can be told apart).

        classes: None keeps the source head, 0 removes it (the network then returns pooled features
        [n, d]), k > 0 puts a fresh head of k outputs. pretrained=False: a random initialisation.

        Raises:
            UserError: weights that do not fit the architecture, or that would need a download.
            RetryableError: the hub did not answer.
        """

    def text_embeddings(self, candidate: Candidate, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings [p, d] of unit length of p texts, in the space of the features that `build` gives without a head.

        Override it in a source whose models have a text tower, and give its card the trait "text".

        Raises:
            UserError: the model has no text tower.
        """
        raise UserError(
            f'"{candidate.name}" has no text tower: a {self.card.name} model knows images alone',
            hint="name an image-text model (--models open-clip:FOLDER), or take a tuner that reads no text "
            "(--tuner linear-probe)",
        )


@dataclass(frozen=True)
class Evidence:
    """What a scorer may look at, for one candidate on the labelled training images.

    Attributes:
        moments: sufficient statistics of features and labels (tlcore.features.moments).
        labels: int64 [n], 0 … K-1.
        features: returns float32 [n, d]; only for scorers with the trait "features".
        source_probabilities: returns float32 [n, z] of the source head, or None without one.
        seed: for scorers that draw.
        folds: moments of disjoint parts of the images with the classes spread evenly, whose sum is `moments`;
            for scorers with the trait "folds". Empty where nobody made them.
        regression: moments of features and real-valued targets, where the targets are numbers, or tags (0 and 1 for
            each); `labels` then are groups of like images, and the other statistics describe no classes.
        targets: float64 [n, T], the same targets image by image, where they are known.
        regression_folds: as `folds`, of these targets.
    """

    moments: Moments
    labels: NDArray[np.int64]
    features: Callable[[], NDArray[np.float32]]
    source_probabilities: Callable[[], NDArray[np.float32] | None]
    seed: int = 0
    folds: tuple[Moments, ...] = ()
    regression: RegressionMoments | None = None
    targets: NDArray[np.float64] | None = None
    regression_folds: tuple[RegressionMoments, ...] = ()

    def sample(self, limit: int) -> NDArray[np.int64]:
        """Sorted positions of at most `limit` images (but two of each class), the same share of every class; all when
        there are no more.

        Follows the seed, so that all candidates of a run are judged on the same images.
        """
        from tlcore.selection.subsets import stratified

        return stratified(self.labels, limit, self.seed)


class Scorer(Strategy):
    """A transferability score."""

    @abstractmethod
    def score(self, evidence: Evidence) -> float:
        """Finite, higher is better.

        Raises:
            UserError: the score is not defined on this evidence (one class, no variance, …).
        """

    def remarks(self, evidence: Evidence) -> tuple[str, ...]:
        """What a person should know about the score of this candidate and cannot see from its value. None here.

        Asked once, after `score` on all the images of the candidate; never on subsets of them. Each is one line
        without the scorer's name, which the host puts before it among the notes of the candidate.
        """
        return ()


LabelSets = Literal["closed", "partial", "open", "open-partial"]
"""Classes of the target against those of the source: the same; some missing; some new; both (Panareda Busto & Gall 2017;
Cao et al. 2018; You et al. 2019)."""


@dataclass(frozen=True)
class TrainTask:
    """What a plan is made for. Counts are images; `feature_dim` is the width before the head.

    gmacs: billions of multiply-accumulates of one image's forward pass; None where nobody counted them.
    label_sets: what is known of the target's classes.
    task: what the labels are. counts: labelled training images of each class (of each tag; empty for numbers).
    target_std: deviation of the training labels, where they are numbers.
    budget: seconds that training may take; None: no bound.
    images_per_second: of one worker's forward passes through the untouched network, as they were measured; None where
        nobody measured.
    trainings: how many times each image is trained on in all: once a fold where all validate in turn.
    """

    classes: tuple[str, ...]
    feature_dim: int
    source_train: int
    target_train: int = 0
    seed: int = 0
    gmacs: float | None = 0.0
    label_sets: LabelSets = "closed"
    task: Task = "classification"
    counts: tuple[int, ...] = ()
    target_std: float = 1.0
    budget: float | None = None
    images_per_second: float | None = None
    trainings: int = 1

    @property
    def images_per_class(self) -> float:
        return self.source_train / len(self.classes)


class Tuner(Strategy):
    """Makes the training plan for labelled images."""

    @abstractmethod
    def plan(self, task: TrainTask) -> TrainPlan: ...

    def choose(self, task: TrainTask) -> tuple[str, dict[str, Any]] | None:
        """The name and the options of the strategy that stands in for this one on such data; None: it trains by itself.

        Override it, and `reason`, in a tuner that never makes a plan of its own: the host asks once the labels are counted.
        """
        return None

    @classmethod
    def choices(cls) -> tuple[str, ...]:
        """Names that `choose` may give, so that a search over their options can be checked beforehand; empty: any."""
        return ()

    def reason(self, task: TrainTask) -> str:
        """Why `choose` chose so, in a phrase for people: "up to 10 images a class"."""
        return ""

    @classmethod
    def chooses(cls) -> bool:
        """Whether tuners of this class stand for another one."""
        return cls.choose is not Tuner.choose


class Adapter(Strategy):
    """Makes the training plan for labelled source and unlabelled target images."""

    @abstractmethod
    def plan(self, task: TrainTask) -> TrainPlan: ...


@dataclass(frozen=True)
class ValidatorOutputs:
    """What a validator may look at. No target label is in here, and none can be reached from here.

    target_probabilities: float64 [n, K] of a bounded sample of the target's images outside the test split;
    source_probabilities, source_labels: the labelled source validation images;
    target_features, source_features: float32 [n, d], the head's inputs of the same images.
    """

    target_probabilities: NDArray[np.float64]
    source_probabilities: NDArray[np.float64]
    source_labels: NDArray[np.int64]
    target_features: NDArray[np.float32]
    source_features: NDArray[np.float32]


class Validator(Strategy):
    """Scores a checkpoint without target labels."""

    @abstractmethod
    def score(self, outputs: ValidatorOutputs) -> float:
        """Finite, higher is better."""

    def bounds(self, outputs: ValidatorOutputs) -> tuple[float, float] | None:
        """The lowest and the highest score that is possible on so many images and classes. None: there are none.

        Several validators are put together as the mean of (score - lowest) / (highest - lowest); one without bounds
        can only be used by itself.
        """
        return None


@dataclass(frozen=True)
class ExportJob:
    """What an exporter gets. `metadata` is written into the file as it is (all strings).

    temperature: that the file divides the logits by before the softmax (Guo et al. 2017); 1: nothing to do.
    """

    network: Network
    preprocess: Preprocess
    classes: tuple[str, ...]
    metadata: Mapping[str, str]
    folder: Path
    extra: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    task: Task = "classification"


class Exporter(Strategy):
    """Writes a trained network to a file that needs nothing beside it."""

    @abstractmethod
    def export(self, job: ExportJob) -> Exported: ...

    @abstractmethod
    def predict(self, path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (or numbers) [n, K] that the *file* gives for uint8 RGB [n, height, width, 3]: what the gate
        compares."""


KINDS: dict[str, type[Strategy]] = {
    "data-source": DataSource,
    "data-check": DataCheck,
    "model-source": ModelSource,
    "scorer": Scorer,
    "adapter": Adapter,
    "tuner": Tuner,
    "validator": Validator,
    "exporter": Exporter,
}
"""Kind as people say it, and its class. The hook of a kind is `tlcore_` + kind + `s`, "-" as "_"."""

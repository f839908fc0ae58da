"""What a search tries next, and which trial it ends early: functions of the trials so far, by optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tlcore.training.space import Choices, Dimension
from tlcore.training.streams import draw_seed
from tlcore.values import Json, SearchTrial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["propose", "unpromising"]

DRAWN = 5
"""Trials before the first that is modelled on those before it; until then options are drawn evenly."""
COMPARED = 3
"""Finished trials without which none is ended early."""
LEAST_EPOCHS = 2
"""Looks at the network before a trial may be ended early."""
AGAIN = 20
"""Draws that are made to find options that were not tried yet."""


def propose(
    space: Sequence[Dimension], done: Sequence[SearchTrial], number: int, seed: int
) -> dict[str, Json] | None:
    """Options for trial `number`, which were not tried before; None where there are no more.

    A tree-structured Parzen estimator (Bergstra et al. 2011, section 4; multivariate: Falkner et al. 2018) of the
    trials so far, after DRAWN of them; even draws before. Pruned trials count by how far they came.
    """
    tried = [trial.options for trial in done]
    distributions = _distributions(space)
    known = [_frozen(trial, distributions) for trial in _known(space, done)]
    for attempt in range(AGAIN):
        study = _study(draw_seed(seed, "search", number, attempt) % 2**32, known)
        options = dict(study.ask(distributions).params)
        if options not in tried:
            return options
    return None


def unpromising(done: Sequence[SearchTrial], curve: Sequence[float]) -> bool:
    """Whether the best of `curve` is worse than the median of the finished trials at the same look (the median
    stopping rule; Golovin et al. 2017, section 3.2.1)."""
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=COMPARED, n_warmup_steps=LEAST_EPOCHS - 1)
    running = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING, intermediate_values=dict(enumerate(curve))
    )
    return bool(pruner.prune(_study(0, [_frozen(trial, {}) for trial in done if trial.finished]), running))


def _distributions(space: Sequence[Dimension]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, BaseDistribution] = {}
    for one in space:
        if isinstance(one, Choices):
            made[one.name] = CategoricalDistribution(one.values)
        elif one.whole:
            made[one.name] = IntDistribution(int(one.low), int(one.high), log=one.log)
        else:
            made[one.name] = FloatDistribution(one.low, one.high, log=one.log)
    return made


def _known(space: Sequence[Dimension], done: Sequence[SearchTrial]) -> list[SearchTrial]:
    """Trials that say something about the space: the configured options may lie outside of narrowed bounds."""
    return [
        trial
        for trial in done
        if trial.validation is not None
        and trial.failed is None
        and all(trial.options.get(one.name) in one for one in space)
    ]


def _study(sampler_seed: int, trials: Sequence[FrozenTrial]) -> Study:
    """A study in memory that knows trials that are over."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=sampler_seed, n_startup_trials=DRAWN)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    return study


def _frozen(trial: SearchTrial, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """The trial as optuna keeps it, with its options where `distributions` are given."""
    import optuna

    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED if trial.pruned else optuna.trial.TrialState.COMPLETE,
        value=trial.validation,
        params=dict(trial.options) if distributions else {},
        distributions=dict(distributions),
        intermediate_values=dict(enumerate(trial.curve)),
    )

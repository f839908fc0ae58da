"""Several label-free validators as one number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tlcore.errors import PluginError, UserError
from tlcore.protocols import Validator, ValidatorOutputs

__all__ = ["Panel"]


class Panel:
    """Validators that choose together: the mean of their scores, each laid off between its own bounds.

    One validator by itself chooses by its score as it is.

    Raises:
        UserError: two validators of one name.
    """

    def __init__(self, validators: Sequence[Validator]) -> None:
        self.validators = tuple(validators)
        self.names = tuple(validator.card.name for validator in validators)
        if len(set(self.names)) < len(self.names):
            raise UserError(f"a validator is named twice: {', '.join(self.names)}", where="adapt.validators")

    def scores(self, outputs: ValidatorOutputs) -> dict[str, float]:
        """Each validator's score, in order.

        Raises:
            PluginError: a score that is not finite.
        """
        found = {}
        for validator in self.validators:
            score = float(validator.score(outputs))
            if not math.isfinite(score):
                raise PluginError(f'the validator "{validator.card.name}" gave {score}')
            found[validator.card.name] = score
        return found

    def combined(self, scores: Mapping[str, float], outputs: ValidatorOutputs) -> float:
        """The score of one, or the mean over (score - lowest) / (highest - lowest) of several, in [0, 1].

        Raises:
            UserError: a validator without bounds among several.
        """
        if len(self.validators) == 1:
            return scores[self.names[0]]
        shares = []
        for validator in self.validators:
            bounds = validator.bounds(outputs)
            if bounds is None:
                raise UserError(
                    f'the validator "{validator.card.name}" has no bounds and cannot be put together with others',
                    where="adapt.validators",
                    hint="use it by itself",
                )
            low, high = bounds
            shares.append((scores[validator.card.name] - low) / (high - low) if high > low else 0.0)
        return sum(shares) / len(shares)

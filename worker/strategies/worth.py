"""What each sentence of a pool is worth: a Bayesian regression on the scores of prompts that hold some of them.

A prompt is a row of zeros and ones, a call a row of a screening design (Box and Meyer 1986): it tells something of
every sentence at once. Its worth is a sum of what the sentences are worth and, with a narrower prior, of what each
two of them add together, as in BOCS (Baptista and Poloczek 2018), told from a prompt in the middle, so that far ones
say less about what a change is worth here; besides this sum a prompt has a share of its own. Thompson sampling
(1933) draws a sum from the posterior, and what is best by it, few changes away, is tried next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

# Standard deviations before anything is known, in units of score.
_LEVEL = 0.3  # of the prompt in the middle
_ALONE = 0.08  # of a sentence
_TOGETHER = 0.03  # of what two sentences add beside their sum
_COMMON = 0.03  # of the mean of all sentences that were added: in some tasks more is better, in others it is not
_OWN = 0.05  # of a prompt beside the sum of its sentences
_DOUBT = 2.0  # calls' worth of belief that a case is as hard as the mean one
_LEAST_VARIANCE, _MOST_VARIANCE = 0.06, 0.25  # of one call; few calls say little about it

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Worth:
    """A sum: `base`, `alone` for each sentence that differs from the middle, `together` for each two of them."""

    base: float
    alone: Array
    together: Array  # symmetric, with nothing on the diagonal
    middle: Array

    def of(self, prompt: Array) -> float:
        z = prompt - self.middle
        return float(self.base + self.alone @ z + 0.5 * z @ self.together @ z)

    def less(self, costs: Array) -> "Worth":
        """The same, where each sentence costs so much."""
        return replace(self, alone=self.alone - costs)

    def toward(self, other: "Worth", share: float) -> "Worth":
        """Between this sum and the other one, both told from one prompt: 0 is this one, 1 the other."""
        parts = {name: getattr(self, name) for name in ("base", "alone", "together")}
        return replace(self, **{name: own + share * (getattr(other, name) - own) for name, own in parts.items()})

    def best_near(self, prompt: Array, *, changes: int, lengths: Array, longest: float) -> Array:
        """Uphill from the prompt, by one sentence or two at a time, to at most so many changes and so long a text."""
        here = prompt.copy()
        for _ in range(4 * len(here)):
            step = self._step(here, here != prompt, changes, lengths, longest)
            if step is None:
                break
            here[step] = 1 - here[step]
        return here

    def _step(self, here: Array, changed: Any, changes: int, lengths: Array, longest: float) -> "list[int] | None":
        """The sentences to put in or leave out next; None where nothing gains."""
        turn = 1 - 2 * here
        gains = turn * (self.alone + self.together @ (here - self.middle))
        grows, left = turn * lengths, longest - float(lengths @ here)
        moves = np.where(changed, -1, 1)
        fits = (changed.sum() + moves <= changes) & (grows <= np.maximum(left, 0))
        one = int(np.argmax(np.where(fits, gains, -np.inf)))
        if fits[one] and gains[one] > 1e-9:
            return [one]
        both = gains[:, None] + gains[None, :] + self.together * turn[:, None] * turn[None, :]
        fits = (changed.sum() + moves[:, None] + moves[None, :] <= changes) & (
            grows[:, None] + grows[None, :] <= max(left, 0)
        )
        np.fill_diagonal(fits, False)
        first, second = divmod(int(np.argmax(np.where(fits, both, -np.inf))), len(here))
        return [first, second] if fits[first, second] and both[first, second] > 1e-9 else None


class Regression:
    """The posterior after all calls so far. `prompts` are rows of zeros and ones, `scores` by case, one of each row."""

    def __init__(
        self,
        prompts: Array,
        scores: Sequence[Mapping[int, float]],
        *,
        middle: Array,
        expected: Array,  # of each sentence, before any call
        added: Array,  # 1 for what is not of the seed
    ) -> None:
        self._middle, self._added = middle, added
        self._pairs = np.triu_indices(len(middle), 1)
        z = prompts - middle
        self._terms = np.hstack(
            [np.ones((len(z), 1)), (z @ added)[:, None], z, z[:, self._pairs[0]] * z[:, self._pairs[1]]]
        )
        spreads = [_LEVEL, _COMMON, *[_ALONE] * len(middle), *[_TOGETHER] * len(self._pairs[0])]
        self._variances: Array = np.array(spreads) ** 2
        values, counts, variance = without_cases(scores)
        level = np.average(values - z @ expected, weights=counts)
        self._expected = np.concatenate([[level, 0.0], expected, np.zeros(len(self._pairs[0]))])
        self._rest = values - self._terms @ self._expected
        self._noise = variance / counts + _OWN**2
        gram = (self._terms * self._variances) @ self._terms.T
        self._inverse = np.linalg.inv(gram + np.diag(self._noise))
        mean = self._variances * (self._terms.T @ (self._inverse @ self._rest))
        self.mean = self._worth(mean)
        # What each prompt of the rows is beside the sum, by what its own calls say.
        self.own = _OWN**2 / self._noise * (self._rest - self._terms @ mean)
        self.values = self._terms @ (self._expected + mean) + self.own

    def draw(self, chance: Random) -> Worth:
        """A sum from the posterior: one from the prior, corrected by the data (Matheron's rule)."""
        normal = [chance.gauss(0, 1) for _ in range(len(self._variances) + len(self._noise))]
        weights = np.array(normal[: len(self._variances)]) * np.sqrt(self._variances)
        heard = self._terms @ weights + np.array(normal[len(self._variances) :]) * np.sqrt(self._noise)
        correction = self._variances * (self._terms.T @ (self._inverse @ (self._rest - heard)))
        return self._worth(weights + correction)

    def _worth(self, weights: Array) -> Worth:
        total = self._expected + weights
        count = len(self._middle)
        together = np.zeros((count, count))
        together[self._pairs] = total[2 + count :]
        alone = total[2 : 2 + count] + total[1] * self._added
        return Worth(float(total[0]), alone, together + together.T, self._middle)


def without_cases(scores: Sequence[Mapping[int, float]]) -> tuple[Array, Array, float]:
    """The mean score of each row, freed of how hard its cases were; its number of cases; the variance of one call.

    Rows and cases are fitted in turns (a two-way layout with holes), the cases drawn toward no effect.
    """
    cases = sorted({case for row in scores for case in row})
    known = np.array([[case in row for case in cases] for row in scores], dtype=float)
    found = np.array([[row.get(case, 0.0) for case in cases] for row in scores])
    counts, tries = known.sum(axis=1), known.sum(axis=0)
    hard = np.zeros(len(cases))
    for _ in range(20):
        values = ((found - hard) * known).sum(axis=1) / counts
        hard = ((found - values[:, None]) * known).sum(axis=0) / (tries + _DOUBT)
        hard -= (hard * tries).sum() / tries.sum()
    left = ((found - hard - values[:, None]) * known) ** 2
    freedom = max(1.0, known.sum() - len(scores) - len(cases))
    return values, counts, float(np.clip(left.sum() / freedom, _LEAST_VARIANCE, _MOST_VARIANCE))

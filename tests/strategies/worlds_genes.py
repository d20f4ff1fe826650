"""Worlds in which demonstrations or settings decide, and how a small world reads the genes of a candidate.

It imports nothing of the small world, which imports it.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from worker.strategies.contract import Genes

# Settings that make a run of a strategy that works on genes short.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "bootstrap": {"candidate_sets": 5, "max_bootstrapped": 2, "max_labeled": 3},
    "mipro": {"num_instructions": 3, "num_demo_sets": 3, "trials": 8, "minibatch_size": 6, "full_eval_every": 4},
    "hyperparameter": {"max_trials": 8, "batch": 3},
    "gepa": {"reflection_minibatch_size": 4, "parents_per_step": 1, "mutations_per_step": 2, "max_rounds": 4},
    "mcts": {"simulations": 4, "candidates_per_node": 2, "evidence_cases": 6},
}
Score = Callable[[str, int], float]


def with_genes(text: str, genes: Genes) -> str:
    """What the model of a small world reads: the text, and a line for each demonstration and each setting."""
    shown = [f"Example {demo['case']}: {demo['output']}" for demo in genes.demos]
    return "\n".join([text, *shown, *(f"[{name}={value}]" for name, value in sorted(genes.params.items()))])


def demonstrated(text: str) -> list[tuple[int, str]]:
    """(case, output) of each demonstration in what a model reads."""
    lines = [line.removeprefix("Example ") for line in text.splitlines() if line.startswith("Example ")]
    return [(int(line.partition(": ")[0]), line.partition(": ")[2]) for line in lines]


def setting(text: str, name: str, default: float) -> float:
    """The value of a setting in what a model reads."""
    found = [line for line in text.splitlines() if line.startswith(f"[{name}=")]
    return float(found[-1].partition("=")[2].rstrip("]")) if found else default


def coin(chance: float, *key: Any) -> float:
    """1 with this chance, else 0; the key decides."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()
    return float(int(digest[:13], 16) / 16**13 < chance)


def demonstrations_decide(salt: int, base: Score) -> Score:
    """A world in which a few train cases explain the task: each that is shown adds to what the text is worth.

    `base` is the true score of a text; every fourth case is worth showing, the others only take room.
    """

    def score(text: str, case: int) -> float:
        return coin(true_demonstrated(text, case, base), salt, text, case)

    return score


def true_demonstrated(text: str, case: int, base: Score) -> float:
    shown = [one for one, _ in demonstrated(text)]
    gain = 0.15 * sum(one % 4 == 0 for one in shown) - 0.02 * len(shown)
    return min(0.95, max(0.02, base(text, case) + gain))


def true_tuned(text: str) -> float:
    """The true score where the settings decide: best at a temperature of 0.7 and a top_p of 0.5."""
    temperature, top_p = setting(text, "temperature", 0.0), setting(text, "top_p", 1.0)
    return max(0.05, 0.9 - 1.2 * (temperature - 0.7) ** 2 - 1.5 * (top_p - 0.5) ** 2)


def settings_decide(salt: int) -> Score:
    def score(text: str, case: int) -> float:
        return coin(true_tuned(text), salt, text, case)

    return score

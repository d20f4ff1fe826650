"""Worlds in which demonstrations or settings decide, and how a small world reads the genes of a candidate."""

from collections.abc import Mapping
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


def with_genes(text: str, genes: Genes) -> str:
    """What the model of a small world reads: the text, and a line for each demonstration and each setting."""
    shown = [f"Example {demo['case']}: {demo['output']}" for demo in genes.demos]
    return "\n".join([text, *shown, *(f"[{name}={value}]" for name, value in sorted(genes.params.items()))])

"""Search strategies: pure reducers. No clock, no database, no HTTP, no logging; JSON state in, work out.

A run is `search.start()` once and `search.step()` for every barrier. Which strategy decides what to try
is looked up here; everything that all of them share (policy, operators, checks, budget, holdout) is not
theirs.
"""

from worker.strategies import (
    anneal,
    beam_search,
    bootstrap,
    genetic,
    gepa,
    hyperparameter,
    iterative,
    mcts,
    merge,
    mipro,
    noop,
    random,
)
from worker.strategies.contract import Strategy

STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "noop": noop,
    "iterative": iterative,
    "beam_search": beam_search,
    "merge": merge,
    "anneal": anneal,
    "genetic": genetic,
    "gepa": gepa,
    "mcts": mcts,
    "bootstrap": bootstrap,
    "mipro": mipro,
    "hyperparameter": hyperparameter,
}

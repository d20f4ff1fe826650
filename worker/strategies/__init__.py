"""Search strategies: pure reducers. No clock, no database, no HTTP, no logging; JSON state in, work out.

A run is `search.start()` once and `search.step()` for every barrier. Which strategy decides what to try
is looked up here; everything that all of them share (policy, operators, checks, budget, holdout) is not
theirs.
"""

from worker.strategies import beam_search, bootstrap, gepa, hyperparameter, mcts, mipro, random
from worker.strategies.contract import Strategy

STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "beam_search": beam_search,
    "bootstrap": bootstrap,
    "mipro": mipro,
    "hyperparameter": hyperparameter,
    "gepa": gepa,
    "mcts": mcts,
}

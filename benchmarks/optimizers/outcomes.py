"""What came of one run, judged by the world and by the record of its calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.optimizers import record
from benchmarks.optimizers.worlds import World

PROMPT_END = "\n\nRecord: {{ record }}"  # of ours; the libraries put the record into a message of its own
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Outcome:
    method: str
    world: str
    family: str
    seed: int
    calls: int
    task_calls: int
    proposer_calls: int
    calls_to_80: int  # the budget where it was never reached
    reached: bool
    regret: float
    gain: float | None  # of the prompt that came out, as a share of what there is to gain; None in a null world
    worse: bool  # than the seed
    claims: bool  # that it has found something better
    proposals_tried: float | None
    failed: bool = False  # it ended with an error: what came out is the seed
    seconds: float | None = None  # from its start to its end; None where nobody waited for answers

    @property
    def is_null(self) -> bool:
        return self.family == "null"


def outcome(
    world: World,
    told: Mapping[str, Any],
    *,
    method: str,
    seed: int,
    budget: int,
    returned: str | None,
    claims: bool,
    seconds: float | None = None,
) -> Outcome:
    """`returned` is None when the search failed."""
    found = record.curve(world, told, budget=budget)
    counted = record.counts(told)
    before, after = world.seed_score, world.true_score(returned or world.seed_text)
    attainable = world.best_score - before
    return Outcome(
        method=method,
        world=world.name,
        family=world.family,
        seed=seed,
        calls=counted["total"],
        task_calls=counted[record.TASK],
        proposer_calls=counted[record.PROPOSER],
        calls_to_80=found.calls_to_80,
        reached=found.reached,
        regret=found.regret,
        gain=None if world.family == "null" else (after - before) / attainable,
        worse=after < before - _ROUNDING,
        claims=claims,
        proposals_tried=record.tried(told),
        failed=returned is None,
        seconds=seconds,
    )

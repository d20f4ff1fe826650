"""Our strategies without their stack: the reducer asks a world directly, in one process. For hundreds of worlds.

It makes the same calls as the fleet would, each request of a sample once, and says nothing about durability.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.optimizers.outcomes import PROMPT_END, Outcome, outcome
from benchmarks.optimizers.record import PROPOSER, TASK, Run
from benchmarks.optimizers.worlds import World
from shared import knobs
from worker.strategies import STRATEGIES, search
from worker.strategies.contract import Case, Evaluate, Problem, Propose, Result, Spent, Work

_TASK_PRICE, _PROPOSAL_PRICE = (100, 0), (500, 0)


def run(strategy: str, world: World, *, seed: int, budget: Mapping[str, int], total: int, level: str) -> Outcome:
    record = Run(world, level)
    problem = Problem(
        spec={
            "strategy": strategy,
            "knobs": knobs.resolve_strategy(strategy, {}),
            "evaluation": knobs.resolve(knobs.EVALUATION, {}, "/evaluation"),
            "split": knobs.resolve_split({}),
            "early_stopping": knobs.resolve(knobs.EARLY_STOPPING, {}, "/early_stopping"),
            "budget": budget,
            "seed": seed,
        },
        components={"template": world.seed_text + PROMPT_END},
        cases=[Case(n, {"record": case.text}, case.answer) for n, case in enumerate(world.cases, 1)],
        price=lambda components, work: _TASK_PRICE if isinstance(work, Evaluate) else _PROPOSAL_PRICE,
        tokens_of=lambda components, genes: len(components["template"].encode()),
        problem_with=_problem_with,
    )
    caller = Caller(record, world)
    step = search.start(problem, STRATEGIES[strategy])
    while not step.finished:
        texts = {item["hash"]: item["components"]["template"] for item in step.state["candidates"]}
        results = [caller.result(work, texts) for work in step.work]
        step = search.step(problem, STRATEGIES[strategy], step.state, results, caller.spent())
    result = step.state["result"]
    texts = {item["hash"]: item["components"]["template"] for item in step.state["candidates"]}
    return outcome(
        world,
        record.told(),
        method=strategy,
        seed=seed,
        budget=total,
        returned=texts[result["best"]],
        claims=result["verdict"] == "improved",
    )


def _problem_with(components: Mapping[str, str]) -> str | None:
    return None if components["template"].count("{{ record }}") == 1 else "variables changed"


class Caller:
    """Makes each call once, as the ledger does."""

    def __init__(self, record: Run, world: World) -> None:
        self._record, self._world = record, world
        self._known: dict[tuple[Any, ...], str] = {}
        self._tasks = self._proposals = 0

    def result(self, work: Work, texts: Mapping[str, str]) -> Result:
        if isinstance(work, Propose):
            return Result(work.key, output=self._proposal(work))
        case = self._world.cases[work.case - 1]
        content = texts[work.candidate].replace("{{ record }}", case.text)
        key = (TASK, content, work.repeat)
        if key not in self._known:
            self._tasks += 1
            messages = [{"role": "user", "content": content}]
            self._known[key] = self._record.call(TASK, messages, temperature=0.0, sample=work.repeat)
        text = self._known[key]
        right = text == case.answer
        return Result(work.key, text, float(right), right, "" if right else f"expected {case.answer}, got {text}")

    def _proposal(self, work: Propose) -> str:
        key = (PROPOSER, repr([dict(message) for message in work.messages]), work.slot)
        if key not in self._known:
            self._proposals += 1
            self._known[key] = self._record.call(PROPOSER, work.messages, temperature=1.0, sample=work.slot)
        return self._known[key]

    def spent(self) -> Spent:
        tokens = self._tasks * _TASK_PRICE[0] + self._proposals * _PROPOSAL_PRICE[0]
        return Spent(self._tasks, self._proposals, tokens, 0)

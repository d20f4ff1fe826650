"""`optimization_config` of Prompt Studio as a request of ours. Nothing in it is dropped without a word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import marshmallow as ma

from app.api import Strict, WholeNumber
from app.api.content import Length, TrueOrFalse
from app.compat.prompt_studio import relocated
from app.compat.prompt_studio.targets import MOVED
from shared import knobs
from shared.errors import Unprocessable, field_error
from shared.models import TestCase

Range = ma.validate.Range
# How the strategies call what the original called iterations: the first that a strategy has.
ROUNDS = (
    "max_rounds",
    "max_iterations",
    "simulations",
    "trials",
    "generations",
    "max_generations",
    "epochs",
    "max_trials",
    "proposals",
)
ITERATIONS, PATIENCE = 50, 5  # the original's defaults
NEVER = knobs.EARLY_STOPPING["patience"].high


class StudioOptimizationConfig(ma.Schema):
    """Knobs of the strategy may stand in `strategy_params` or beside it."""

    class Meta:
        unknown = ma.INCLUDE

    optimizer_type = ma.fields.String(validate=Length(1, 64))
    max_iterations = WholeNumber(validate=Range(1, 500), metadata={"description": f"{ITERATIONS} if left out"})
    target_metric = ma.fields.String(allow_none=True, metadata={"description": "accuracy, or the name of a scorer"})
    target_value = Strict(allow_none=True, validate=Range(0, 1, min_inclusive=False))
    early_stopping = TrueOrFalse()
    early_stopping_patience = WholeNumber(validate=Range(1, 1000), metadata={"description": f"{PATIENCE} if left out"})
    temperature_range = ma.fields.List(Strict(), allow_none=True, validate=Length(2, 2))
    techniques_to_try = ma.fields.List(
        ma.fields.String(), allow_none=True, metadata={"description": "No effect here; a warning says so"}
    )
    models_to_test = ma.fields.List(ma.fields.String(validate=Length(1, 128)), allow_none=True, validate=Length(max=1))
    budget_limit = Strict(
        allow_none=True, validate=Range(0, 1e6), metadata={"description": "USD; held before spending"}
    )
    strategy_params = ma.fields.Dict(keys=ma.fields.String(), allow_none=True)


KNOWN = frozenset(StudioOptimizationConfig().fields)


@dataclass(frozen=True)
class Config:
    """A checked `optimization_config`: everything but how many calls `iterations` may take, which the cases decide."""

    strategy: str  # as it was named, which may stand for knobs too
    knobs: Mapping[str, Any]
    iterations: int
    early_stopping: Mapping[str, Any]
    metric: str | None
    model_name: str | None
    max_cost_usd: float | None
    at: str  # where it stands in the body
    warnings: Sequence[str] = field(default=())

    def moved(self) -> Mapping[str, str]:
        """Where the fields of /v1 stand in the body of the original."""
        return {
            **MOVED,
            "/knobs": f"{self.at}/strategy_params",
            "/strategy": f"{self.at}/optimizer_type",
            "/early_stopping/patience": f"{self.at}/early_stopping_patience",
            "/early_stopping/target_score": f"{self.at}/target_value",
            "/budget": f"{self.at}/budget_limit",
            "/budget/max_cost_usd": f"{self.at}/budget_limit",
            "/budget/max_task_calls": f"{self.at}/max_iterations",
            "/model": f"{self.at}/models_to_test",
            "/params": self.at,
            "/params/max_new_tokens": f"{self.at}/max_tokens",
        }


def strategy_of(name: str, pointer: str) -> str:
    """The name that we have for a strategy; 422 that names those that there are."""
    try:
        return knobs.canonical(name, {})[0]
    except Unprocessable:
        raise field_error(pointer, f"there is no strategy {name!r}; there are: {', '.join(knobs.STRATEGIES)}") from None


def check(given: Mapping[str, Any], at: str, *, strategy: str | None = None, usual: int = ITERATIONS) -> Config:
    """`strategy`: named beside the config; another one within it is a contradiction. `usual` iterations if none are."""
    named = given.get("optimizer_type", strategy)
    if named is None:
        raise field_error(f"{at}/optimizer_type", f"required; there are: {', '.join(knobs.STRATEGIES)}")
    ours = strategy_of(named, f"{at}/optimizer_type" if "optimizer_type" in given else "/strategy")
    if strategy is not None and strategy_of(strategy, "/strategy") != ours:
        raise field_error("/strategy", f"is another than {at[1:]}/optimizer_type")
    iterations = given.get("max_iterations", usual)
    warnings = []
    if given.get("techniques_to_try"):
        warnings.append("techniques_to_try: no effect; the strategy's own operators decide (strategy_params/operators)")
    models = given.get("models_to_test") or [None]
    return Config(
        strategy=named,
        knobs=_knobs(named, given, iterations, at),
        iterations=iterations,
        early_stopping=_early_stopping(given),
        metric=given.get("target_metric"),
        model_name=models[0],
        max_cost_usd=given.get("budget_limit"),
        at=at,
        warnings=warnings,
    )


def rounds_of(strategy: str, values: Mapping[str, Any]) -> int | None:
    """How many iterations a search may take, by the knob that its strategy has for them."""
    return next((values[name] for name in ROUNDS if name in knobs.STRATEGIES.get(strategy, ())), None)


def calls_for(spec: Mapping[str, Any], iterations: int, cases: Sequence[TestCase]) -> int:
    """Task calls that a search without a ceiling gets: every iteration on all cases, the baseline and the holdout."""
    once = len(cases) * spec["evaluation"]["repeats"]
    return max((iterations + 2) * once, knobs.minimum_task_calls(spec, len(cases)))


def _knobs(named: str, given: Mapping[str, Any], iterations: int, at: str) -> dict[str, Any]:
    """The knobs under the names that they were given, with the iterations and the temperatures as knobs among them."""
    beside = {name: value for name, value in given.items() if name not in KNOWN}
    inside = dict(given.get("strategy_params") or {})
    twice = [name for name in inside if name in beside and beside[name] != inside[name]]
    if twice:
        raise field_error(f"{at}/strategy_params/{twice[0]}", "has another value beside strategy_params")
    found = {**beside, **inside}
    try:
        strategy, own = knobs.canonical(named, found)
    except Unprocessable as error:
        raise relocated(error, {"/knobs": f"{at}/strategy_params"}) from error
    rounds = next((name for name in ROUNDS if name in knobs.STRATEGIES[strategy]), None)
    if rounds is not None:
        if "max_iterations" in given and own.get(rounds, iterations) != iterations:
            raise field_error(f"{at}/max_iterations", f"is another number than {rounds}, which is what it means")
        if rounds not in own:
            # A grid has as many points as it has: a number that nobody has given does not make them too many.
            is_grid = own.get("search_method") == "grid" and "max_iterations" not in given
            found[rounds] = max(iterations, knobs.STRATEGIES[strategy][rounds].default) if is_grid else iterations
    if given.get("temperature_range"):
        if strategy != "hyperparameter":
            raise field_error(f"{at}/temperature_range", f"{strategy} tries no temperatures; leave it out")
        if "params_to_optimize" in own:
            raise field_error(f"{at}/temperature_range", "contradicts params_to_optimize; give one of them")
        low, high = given["temperature_range"]
        found["params_to_optimize"] = {"temperature": {"low": low, "high": high}}
    return found


def _early_stopping(given: Mapping[str, Any]) -> dict[str, Any]:
    patience = given.get("early_stopping_patience", PATIENCE) if given.get("early_stopping", True) else int(NEVER)
    target = given.get("target_value")
    return {"patience": patience, **({} if target is None else {"target_score": target})}

"""What a budget must cover before a search can begin: its baseline, with the price of its holdout kept back.

The reducer buys nothing that could pass a limit at its upper bounds. Below this it would end where it began, with
nothing measured; so it is refused before it is recorded. Reads only.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from shared import splits
from shared.domain import judges, providers
from shared.domain.content import render_messages
from shared.domain.evaluations import Target
from shared.errors import BudgetTooSmall, FieldError

_HOLDOUTS = 2  # of the seed, and of what may become the best


@dataclass(frozen=True)
class Opening:
    """The upper bounds of all calls that a search begins with."""

    tokens: int
    nano: int
    judge_calls: int


def check_budget(budget: Mapping[str, Any], opening: Opening) -> None:
    """Refuse tokens, money and calls of judges that the beginning may exceed, each with the number that is needed."""
    what = "the baseline, with the holdout kept back, may take up to"
    errors = []
    if budget["max_tokens"] is not None and budget["max_tokens"] < opening.tokens:
        errors.append(FieldError("/budget/max_tokens", f"{what} {opening.tokens} tokens"))
    if budget["max_cost_nano"] is not None and budget["max_cost_nano"] < opening.nano:
        dollars = f"{opening.nano // 10**9}.{opening.nano % 10**9:09d}".rstrip("0").rstrip(".")
        errors.append(FieldError("/budget/max_cost_usd", f"{what} {dollars} USD"))
    if budget.get("max_judge_calls") is not None and budget["max_judge_calls"] < opening.judge_calls:
        errors.append(FieldError("/budget/max_judge_calls", f"{what} {opening.judge_calls} calls of judges"))
    if errors:
        raise BudgetTooSmall("; ".join(error.detail for error in errors), errors=errors)


def opening_of(session: Session, spec: Mapping[str, Any], target: Target, model: Mapping[str, Any]) -> Opening:
    """Of any strategy, with any seed. Nothing is counted where neither tokens, money nor judges have a limit."""
    if all(spec["budget"].get(name) is None for name in ("max_tokens", "max_cost_nano", "max_judge_calls")):
        return Opening(0, 0, 0)
    quote = providers.quote(session, model["provider"], model["model_name"])
    asked = judges.quotes_of(session, spec["scorers"])
    longest = judges.longest_answer(model["params"])
    beside = {name: target.version.content.get(name) for name in ("tools", "response_schema")}
    tokens = nano = judge_calls = 0
    calls = _calls(spec, target)
    for case in target.cases:
        if not calls[case.ordinal]:
            continue
        messages = render_messages(target.version.content, case.inputs)
        bounds = [providers.upper_bound(quote, messages, model["params"], **beside)]
        questions = judges.asked_about(spec["scorers"], case, longest)
        bounds += [judges.bound_of(asked, ask) for ask in questions]
        judge_calls += calls[case.ordinal] * len(questions)
        tokens += calls[case.ordinal] * sum(bound[0] for bound in bounds)
        nano += calls[case.ordinal] * sum(bound[1] for bound in bounds)
    return Opening(tokens, nano, judge_calls)


def _calls(spec: Mapping[str, Any], target: Target) -> Counter[int]:
    """How often each case is asked, by its ordinal."""
    watched, repeats = spec["evaluation"].get("generalization_check_every", 0) > 0, spec["evaluation"]["repeats"]
    parts = splits.split(target.cases, spec["split"], watched=watched)
    counts = Counter(dict.fromkeys(parts.dev[: spec["evaluation"]["max_cases"]], repeats))
    counts.update(dict.fromkeys(parts.holdout, _HOLDOUTS * repeats))
    return counts

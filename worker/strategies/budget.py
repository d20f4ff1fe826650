"""What may still be bought: work that fits the limits at its upper bounds, with the holdout's price kept back."""

from collections.abc import Mapping, Sequence
from typing import cast

from worker.strategies.contract import Evaluate, Work
from worker.strategies.record import Record

# What is counted: the limit that it is held against, and the finish reason when it would be passed.
_MEASURES = {
    "task_calls": ("max_task_calls", "budget_task_calls"),
    "proposer_calls": ("max_proposer_calls", "budget_proposer_calls"),
    "judge_calls": ("max_judge_calls", "budget_judge_calls"),
    "tokens": ("max_tokens", "budget_tokens"),
    "nano": ("max_cost_nano", "budget_cost"),
}


def affordable(record: Record, asked: Sequence[Work], units: Sequence[Sequence[Work]]) -> tuple[int, str | None]:
    """How many of the units, the first first, fit beside what this step has asked for already.

    With it the finish reason of the limit that stands against having them all; None when all fit.
    """

    def shortage(count: int) -> str | None:
        return _shortage(record, asked, [work for unit in units[:count] for work in unit])

    reason = shortage(len(units)) if any(units) else None  # what costs nothing is not refused
    if not reason:
        return len(units), None
    fits, too_many = 0, len(units)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if shortage(middle):
            too_many = middle
        else:
            fits = middle
    return fits, reason


def _shortage(record: Record, asked: Sequence[Work], wanted: Sequence[Work]) -> str | None:
    limits = record.problem.spec["budget"]
    charged = record.state.get("charged") or record.state["spent"]
    works = _unpaid(record, [*asked, *wanted])
    carried = record.problem.spec.get("carried", {})  # of older continuations without what judges were asked
    if not works and record.problem.paid and all(charged[measure] == used for measure, used in carried.items()):
        return None  # as long as nothing was bought it comes to the prompt whose holdout was paid for, too
    need = _bound(record, works)
    reserve = _reserve(record, [*asked, *wanted])
    for measure, (name, reason) in _MEASURES.items():
        limit = limits.get(name)
        if limit is not None and charged[measure] + need[measure] + reserve[measure] > limit:
            return reason
    return None


def _unpaid(record: Record, works: Sequence[Work]) -> list[Work]:
    paid = record.problem.paid
    return [work for work in works if work.key not in paid] if paid else list(works)


def _bound(record: Record, works: Sequence[Work]) -> dict[str, int]:
    """The most that these calls may cost, by measure."""
    total = dict.fromkeys(_MEASURES, 0)
    for work in works:
        subject = work.candidate if isinstance(work, Evaluate) else work.parent
        tokens, nano = record.problem.price(record.components(subject), work)
        total["task_calls" if isinstance(work, Evaluate) else "proposer_calls"] += 1
        total["judge_calls"] += record.problem.questions(work)
        total["tokens"] += tokens
        total["nano"] += nano
    return total


def _reserve(record: Record, wanted: Sequence[Work]) -> dict[str, int]:
    """What the holdout may cost at most: of the seed, and of the dearest candidate that may become the best.

    Only a candidate with a full dev score can, so whatever is bought never outgrows this.
    """
    if record.state["phase"] == "holdout":
        return dict.fromkeys(_MEASURES, 0)
    asked = {(work.candidate, work.case) for work in wanted if isinstance(work, Evaluate)}
    contenders = [
        _holdout_bound(record, one)
        for one in record.candidates
        if not record.is_teacher(one)
        and all(record.is_tried(one, case) or (one, case) in asked for case in record.fair(one, record.dev))
    ]
    seed = _holdout_bound(record, record.seed)
    return {name: seed[name] + max((bound[name] for bound in contenders), default=0) for name in _MEASURES}


def _holdout_bound(record: Record, candidate: str) -> Mapping[str, int]:
    """What the holdout of one candidate may cost; kept in its item of the state, because it never changes."""
    item = record.candidates[candidate]
    if "holdout_bound" not in item:
        item["holdout_bound"] = _bound(record, _unpaid(record, record.untried(candidate, record.state["holdout"])))
    return cast("Mapping[str, int]", item["holdout_bound"])

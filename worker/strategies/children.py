"""How a child comes to be: what a model that is asked for one gets to see, and why one is refused unpaid.

Both keep what is held out from the texts: the model sees train cases only, and a child may not quote others.
"""

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from rapidfuzz import fuzz

from worker.strategies import edits, operators
from worker.strategies.contract import NO_GENES, Genes, Propose
from worker.strategies.operators import Failure, Shown
from worker.strategies.outcome import shrunk_value
from worker.strategies.placeholders import PLACEHOLDER
from worker.strategies.record import Record, pieces, text_of

_SCORED_SHOWN = 8  # earlier prompts that `opro` is shown
_REPAIR_SLOTS = 1_000_000  # apart from the slots of first answers, so that no two calls are one


class Wanted(NamedTuple):
    """A child that is asked for. `note` is a critique to apply; `component` is drawn when it is None.

    `further` are edits that follow on the first one.
    """

    operator: str
    parent: str
    slot: int
    mates: tuple[str, ...] = ()
    note: str = ""
    component: str | None = None
    further: tuple[str, ...] = ()


Asked = Wanted | tuple[str, str, int]


def request(record: Record, ask: Wanted, component: str, chance: Random) -> Propose:
    """The work that asks for a new text of one component."""
    component = ask.component or component
    operator = ask.operator
    mates = ask.mates
    if operator in operators.WITH_MATES and not mates:
        mates = _others(record, ask.parent, component, chance)
    failures = _failures(record, ask.parent)
    gradient = "errors_per_gradient" if operator == "gradient" else "errors_in_context"
    count = record.knobs[gradient]
    failed = chance.sample(failures, min(count, len(failures)))
    train = record.state["train"]
    examples = [_example(record, case) for case in chance.sample(train, min(count, len(train)))]
    nothing_wrong = operator in operators.WITH_FAILURES and not failed
    if nothing_wrong or (operator in operators.WITH_MATES and not mates):
        operator = "paraphrase"  # there is nothing to start from
    texts = [record.components(mate)[component] for mate in mates]
    scored = _scored(record, component) if operator == "opro" else ()
    shown = Shown(failed, examples, texts, scored, ask.note)
    messages = operators.request(operator, record.components(ask.parent)[component], shown)
    evidence = [one.case for one in failed] if operator in operators.WITH_FAILURES else []
    if operator in operators.WITH_EXAMPLES:
        evidence = [one.case for one in examples]
    seen = mates if operator in operators.WITH_MATES else ()
    return Propose(operator, ask.parent, component, messages, record.round, ask.slot, tuple(evidence), seen)


def repair(record: Record, item: Mapping[str, object]) -> Propose:
    """The work that asks to repair an answer which lost a variable or does not compile."""
    parent, component, attempt = str(item["parent"]), str(item["component"]), int(str(item["attempt"])) + 1
    wanted = sorted(set(PLACEHOLDER.findall(record.components(parent)[component])))
    note = f"{item['problem']}; it must have exactly these placeholders: {', '.join(wanted) or 'none'}"
    slot = int(str(item["slot"])) % _REPAIR_SLOTS + attempt * _REPAIR_SLOTS
    mates = item["mates"] if isinstance(item["mates"], list) else []
    return Propose(
        "repair",
        parent,
        component,
        operators.request("repair", str(item["text"]), Shown(note=note)),
        record.round,
        slot,
        mates=tuple(mates),
        repair_of=str(item["repair_of"]),
        attempt=attempt,
        origin=str(item["origin"] or item["key"]),
    )


def edited(record: Record, ask: Wanted, component: str, chance: Random) -> tuple[str, str]:
    """The component that a free edit changes, and its new text."""
    component = ask.component or component
    text = record.components(ask.parent)[component]
    deleted = ancestors(record, ask.parent, component)
    for operator in (ask.operator, *ask.further):
        text = edits.edit(operator, text, chance, level=record.knobs.get("edit_level", "line"), deleted=deleted)
    return component, text


def slot_of(record: Record, candidate: str) -> int:
    """The slot that the candidate was asked for in, also when its answer had to be repaired."""
    return int(record.candidates[candidate]["lineage"]["slot"]) % _REPAIR_SLOTS


def ancestors(record: Record, candidate: str, component: str) -> list[str]:
    """The texts of one component that this candidate descends from, the nearest first."""
    found: dict[str, None] = {}
    waiting = list(record.candidates[candidate]["parents"])
    while waiting:
        one = waiting.pop(0)
        if one not in found:
            found[one] = None
            waiting += record.candidates[one]["parents"]
    return [record.components(one)[component] for one in found]


def _others(record: Record, candidate: str, component: str, chance: Random) -> tuple[str, ...]:
    """One of the better other candidates, to be combined with; none where there is no other."""
    values = {one: shrunk_value(record, one) for one in record.candidates if one != candidate}
    best = sorted((one for one, value in values.items() if value is not None), key=lambda one: -(values[one] or 0.0))
    return (chance.choice(best[:_SCORED_SHOWN]),) if best else ()


def _scored(record: Record, component: str) -> Sequence[tuple[str, float]]:
    """The best texts so far with their values, the worst of them first (OPRO, Yang et al. 2023)."""
    values = {one: shrunk_value(record, one) for one in record.candidates}
    found = [(record.components(one)[component], value) for one, value in values.items() if value is not None]
    return sorted(found, key=lambda pair: pair[1])[-_SCORED_SHOWN:]


def _failures(record: Record, candidate: str) -> list[Failure]:
    return [
        Failure(item["case"], record.inputs(item["case"]), item["output"], item["feedback"])
        for item in record.state["failures"].get(candidate, [])
    ]


def _example(record: Record, case: int) -> Failure:
    return Failure(case, record.inputs(case), "", f"expected {record.cases[case].expected}")


def refusal(record: Record, components: Mapping[str, str], digest: str, genes: Genes = NO_GENES) -> str | None:
    """Why a new candidate is not worth a single call; None when it is."""
    if digest in record.candidates:
        return "duplicate"
    problem = record.problem.problem_with(components)
    if not problem and genes:
        problem = _problem_with_genes(record, components, genes)
    if problem:
        return problem
    text = text_of(components)
    growth = record.knobs.get("max_growth", math.inf)
    if len(text) > growth * len(record.text(record.seed)):
        return f"longer than {growth:g} times the seed"
    most = record.knobs.get("max_prompt_tokens")
    if most is not None and (tokens := record.problem.tokens_of(components, genes)) > most:
        return f"may take {tokens} tokens, and max_prompt_tokens is {most}"
    folded = " ".join(text.split())
    limit = 100 * record.knobs.get("near_dup", 1.0)
    # Likeness is a matter of texts: with other demonstrations or settings the same text is another candidate.
    for other in (one for one in record.candidates if record.genes(one) == genes):
        if fuzz.ratio(folded, " ".join(record.text(other).split()), score_cutoff=limit) >= limit:
            return "near duplicate"
    return "holds a piece of a held-out case" if _leaks(record, text) else None


def _problem_with_genes(record: Record, components: Mapping[str, str], genes: Genes) -> str | None:
    if not genes.cases <= set(record.state["train"]):
        return "shows a case that is not for training"
    return record.problem.problem_with_genes(components, genes)


def _leaks(record: Record, text: str) -> bool:
    found = set(pieces(text)).difference(pieces(record.text(record.seed)))
    if record.hidden_pieces is not None:
        return not found.isdisjoint(record.hidden_pieces)
    return bool(found) and not all(found.isdisjoint(pieces(value)) for value in record.hidden_texts)

"""How a child comes to be: what a model that is asked for one gets to see, and why one is refused unpaid.

Both keep what is held out from the texts: the model sees train cases only, and a child may not quote others.
"""

import math
from collections.abc import Iterator, Mapping
from random import Random

from rapidfuzz import fuzz

from worker.strategies import operators
from worker.strategies.contract import NO_GENES, Genes, Propose
from worker.strategies.operators import Failure
from worker.strategies.record import Record, text_of

LEAK_CHARACTERS = 40  # a candidate may not hold so long a piece of a dev or holdout case


def request(record: Record, operator: str, parent: str, component: str, slot: int, chance: Random) -> Propose:
    """The work that asks for a new text of one component."""
    failures = _failures(record, parent)
    count = record.knobs["errors_in_context"]
    shown = chance.sample(failures, min(count, len(failures)))
    if operator == "reflect" and not shown:
        operator = "paraphrase"  # nothing went wrong: there is nothing to reflect on
    train = record.state["train"]
    examples = [_example(record, case) for case in chance.sample(train, min(count, len(train)))]
    messages = operators.request(operator, record.components(parent)[component], shown, examples)
    evidence = {"reflect": [f.case for f in shown], "fresh_start": [e.case for e in examples]}.get(operator, [])
    return Propose(operator, parent, component, messages, record.round, slot, tuple(evidence))


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
    folded = " ".join(text.split())
    # Likeness is a matter of texts: with other demonstrations or settings the same text is another candidate.
    for other in (one for one in record.candidates if record.genes(one) == genes):
        if fuzz.ratio(folded, " ".join(record.text(other).split())) / 100 >= record.knobs.get("near_dup", 1.0):
            return "near duplicate"
    return "holds a piece of a held-out case" if _leaks(record, text) else None


def _problem_with_genes(record: Record, components: Mapping[str, str], genes: Genes) -> str | None:
    if not genes.cases <= set(record.state["train"]):
        return "shows a case that is not for training"
    return record.problem.problem_with_genes(components, genes)


def _leaks(record: Record, text: str) -> bool:
    pieces = set(_pieces(text)).difference(_pieces(record.text(record.seed)))
    hidden = {*record.state["dev"], *record.state["holdout"]} - set(record.state["train"])
    values = (value for case in hidden for value in record.inputs(case).values())
    return not all(pieces.isdisjoint(_pieces(value)) for value in values)


def _pieces(text: str) -> Iterator[str]:
    """Every piece of the text that is just long enough to give a case away."""
    return (text[i : i + LEAK_CHARACTERS] for i in range(len(text) - LEAK_CHARACTERS + 1))

"""Demonstrations: answered train cases that a prompt shows before it asks. Who answers them, and which go together.

After DSPy's BootstrapFewShot (Khattab et al. 2023): a teacher runs train cases, what scores well is shown as it was
answered; places that are left are filled with what was expected. A candidate is never scored on a case it shows.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, Any

from rapidfuzz import fuzz

from shared.knobs import teacher_cases
from worker.strategies.contract import Genes

if TYPE_CHECKING:
    from worker.strategies.search import Search

Demo = dict[str, Any]
_REASON = "Reason step by step first, then give the answer that is asked for, last and in the form that is asked for."
_WARM = 1.0  # temperature of a teacher that answers what it has got wrong once more


def teach(search: "Search") -> bool:
    """Have train cases answered, a pass at a time; True when it is over, False when work was asked for."""
    passes = search.knobs.get("rounds", 1)
    done = search.own.get("taught", 0)
    cases = _pupils(search)
    while done < passes and cases:
        done += 1
        search.own["taught"] = done
        # What was not answered well is asked again, of a warmer teacher where the model takes a temperature.
        teacher = _teacher(search, {} if done == 1 else {"temperature": _WARM}) if done <= 2 else None
        if teacher is not None:
            search.own.update({"teacher": teacher, "lessons": 0})
        elif done == 1:
            return True
        search.own["lessons"] += 1
        open_cases = [case for case in cases if str(case) not in search.state.get("answers", {})]
        asked = len(search.work)
        search.sample(search.own["teacher"], open_cases, search.own["lessons"])
        if len(search.work) > asked:
            return False
    return True


def _pupils(search: "Search") -> list[int]:
    """The train cases that are answered at most, in the order in which they are."""
    train = list(search.state["train"])
    search.draw("pupils").shuffle(train)
    return train[: teacher_cases(search.knobs)]


def _teacher(search: "Search", params: Mapping[str, Any]) -> str | None:
    name = search.knobs["teacher"]
    params = {**({"model_name": name} if name else {}), **params}
    texts = dict(search.components(search.seed))
    if search.knobs.get("include_reasoning"):
        first = min(texts)
        texts[first] = f"{_REASON}\n{texts[first]}"
    elif not params:
        return search.seed
    genes = Genes(params=params)
    return search.admit(texts, parents=[search.seed], operator="teacher", lineage={}, genes=genes)


def answered(search: "Search") -> list[Demo]:
    """What the teacher answered well enough, in the order of the train cases."""
    answers = search.state.get("answers", {})
    return [{"case": case, "output": answers[str(case)]} for case in search.state["train"] if str(case) in answers]


def labeled(search: "Search") -> list[Demo]:
    """Train cases with what was expected of them; those of which nothing is expected are none."""
    found = []
    for case in search.state["train"]:
        expected = search.cases[case].expected
        if expected is not None:
            text = expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False)
            found.append({"case": case, "output": text})
    return found


def control(search: "Search", most: int) -> list[Demo]:
    """The first labelled cases, as they come."""
    return labeled(search)[:most]


def random_set(search: "Search", chance: Random, *, bootstrapped: int, most: int, spread: bool = False) -> list[Demo]:
    """From one to `bootstrapped` answered cases, with labelled ones beside them up to `most` in all.

    `spread`: each one as unlike those before it as the cases allow, in place of any.
    """
    pool = answered(search)
    count = min(chance.randint(1, bootstrapped), len(pool)) if bootstrapped and pool else 0
    chosen = _spread(search, pool, count, chance) if spread else chance.sample(pool, count)
    taken = {demo["case"] for demo in chosen}
    rest = [demo for demo in labeled(search) if demo["case"] not in taken]
    room = max(0, most - len(chosen))
    if not chosen and room:
        room = chance.randint(1, room)  # sets of labelled cases alone differ in their size too
    room = min(room, len(rest))
    more = _spread(search, rest, room, chance, chosen) if spread else chance.sample(rest, room)
    return [*chosen, *more]


def _spread(
    search: "Search", pool: Sequence[Demo], count: int, chance: Random, beside: Sequence[Demo] = ()
) -> list[Demo]:
    """Greedy farthest-first choice by the likeness of inputs, from a random start."""
    left, chosen = list(pool), list(beside)
    while left and len(chosen) - len(beside) < count:
        if chosen:
            pick = min(left, key=lambda demo: max(likeness(search, demo["case"], one["case"]) for one in chosen))
        else:
            pick = chance.choice(left)
        chosen.append(pick)
        left.remove(pick)
    return chosen[len(beside) :]


def ordered(search: "Search", demos: Sequence[Demo], chance: Random) -> list[Demo]:
    """In the order that the knob asks for; the last one stands nearest to the question."""
    if search.knobs.get("order", "random") == "by_similarity":
        others = search.state["train"]
        return sorted(
            demos, key=lambda demo: (mean(likeness(search, demo["case"], one) for one in others), demo["case"])
        )
    mixed = list(demos)
    chance.shuffle(mixed)
    return mixed


def likeness(search: "Search", one: int, other: int) -> float:
    """In [0, 1], of two cases by their inputs."""
    texts = ("\n".join(value for _, value in sorted(search.inputs(case).items())) for case in (one, other))
    return fuzz.ratio(*texts) / 100


def admit(
    search: "Search", demos: Sequence[Demo], *, base: str, operator: str, lineage: Mapping[str, Any]
) -> str | None:
    """The texts of `base` with these demonstrations; None when there are none, or this was refused."""
    if not demos:
        return None
    genes = Genes(demos=demos, params=search.genes(base).params)
    return search.admit(
        dict(search.components(base)), parents=[base], operator=operator, lineage={**lineage}, genes=genes
    )

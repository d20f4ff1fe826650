"""Instructions paired with sets of demonstrations; a model of the scores picks the pairs to try.

MIPROv2 (Opsahl-Ong et al. 2024): instructions and sets are made first, trials score pairs on minibatches, and now
and then the pair with the best mean is scored on all of dev. What it lacks, revising instructions after failures,
is `refresh_instructions_every`.
"""

from typing import TYPE_CHECKING, Any

from shared.knobs import TIPS, most_trials
from worker.strategies import demos, operators, trials
from worker.strategies.contract import Genes, Propose, identity

if TYPE_CHECKING:
    from worker.strategies.search import Search

_EVIDENCE = 16  # train cases on which the best is run before it is rewritten


def begin(search: "Search") -> None:
    search.own.update(
        {"stage": "teach", "rows": [], "instructions": [search.seed], "sets": [], "trials": 0, "batches": 0}
    )
    search.own.update({"full": 0, "is_short": False})


def advance(search: "Search") -> None:
    stage = search.own["stage"]
    if stage == "teach":
        if demos.teach(search):
            _make_sets(search)
            _propose(search)
    elif stage == "collect":
        search.own["instructions"] += search.children()
        search.own["stage"] = "trial"
    elif stage == "trial":
        _try(search)
    elif stage == "full":
        _score_the_best(search)
    elif stage == "close":
        _close(search)
    elif stage == "rewrite":
        search.own["stage"] = "collect"
        count = max(1, search.knobs["num_instructions"] // 2)
        search.propose([("reflect", search.incumbent, slot) for slot in range(count)])


def _make_sets(search: "Search") -> None:
    knobs = search.knobs
    for slot in range(knobs["num_demo_sets"]):
        chance = search.draw("set", slot)
        bootstrapped, most = knobs["max_bootstrapped_demos"], knobs["max_labeled_demos"]
        made = demos.random_set(search, chance, bootstrapped=bootstrapped, most=most)
        if made and made not in search.own["sets"]:
            search.own["sets"].append(demos.ordered(search, made, chance))


def _propose(search: "Search") -> None:
    """Ask for instructions from examples of the task, each in another style."""
    search.own["stage"] = "collect"
    wanted = []
    for slot in range(search.knobs["num_instructions"]):
        chance = search.draw("instruction", slot)
        component = chance.choice(search.free_components)
        train = search.state["train"]
        cases = chance.sample(train, min(search.knobs["errors_in_context"], len(train)))
        examples = [
            operators.Failure(case, search.inputs(case), "", f"expected {search.cases[case].expected}")
            for case in cases
        ]
        messages = operators.request(
            "fresh_start", search.components(search.seed)[component], operators.Shown(examples=examples)
        )
        tip = TIPS[search.knobs["tips"][slot % len(search.knobs["tips"])]]
        if tip:
            messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n{tip}"}
        wanted.append(Propose("fresh_start", search.seed, component, messages, search.round, slot, tuple(cases)))
    if not search.ask_proposals(wanted) and not search.own["sets"]:
        search.conclude("budget")


def _try(search: "Search") -> None:
    """The next pairs, on a minibatch that they share."""
    own, knobs = search.own, search.knobs
    count = min(knobs["batch"], _trials(search) - own["trials"])
    choices = {"instruction": len(own["instructions"]), "demos": len(own["sets"]) + 1}
    space = {name: {"type": "categorical", "choices": list(range(size))} for name, size in choices.items()}
    rows = [
        ({"instruction": instruction, "demos": chosen}, search.value(one, _minibatch(search, round_)) if one else None)
        for instruction, chosen, one, round_ in own["rows"]
    ]
    wanted = []
    for point in trials.ask(knobs["sampler"], space, rows, count=count, seed=search.problem.spec["seed"]):
        pair = _pair(search, point["instruction"], point["demos"])
        own["rows"].append([point["instruction"], point["demos"], pair, search.round])
        wanted += [pair] if pair and pair not in wanted else []
    own["trials"] += max(count, len(own["rows"]) - len(rows))
    own["batches"] += 1
    own["stage"] = "full"
    own["is_short"] = len(search.evaluate_affordable(wanted, _minibatch(search, search.round))) < len(wanted)


def _trials(search: "Search") -> int:
    return most_trials(search.knobs)


def _minibatch(search: "Search", round_: int) -> list[int]:
    """The dev cases of the trials of one round: every case once, in a balanced order, before any comes again."""
    size = len(search.dev)
    if search.evaluation["mode"] != "full":
        size = min(search.knobs["minibatch_size"], size)
    epoch, place = divmod(round_ - 1, len(search.dev) // size)
    order = search.balanced(search.dev, search.problem.spec["seed"], "minibatch", epoch)
    return order[place * size : (place + 1) * size]


def _pair(search: "Search", instruction: int, chosen: int) -> str | None:
    """The candidate that this pair is; None when it was refused."""
    base = search.own["instructions"][instruction]
    components = dict(search.components(base))
    genes = Genes(demos=search.own["sets"][chosen - 1] if chosen else ())
    known = identity(components, genes)
    if known in search.candidates:
        return known
    return search.admit(components, parents=[base], operator="pair", lineage={"set": chosen}, genes=genes)


def _score_the_best(search: "Search") -> None:
    """After every so many trials, and after the last: all of dev for the pair whose mean is best."""
    own = search.own
    own["stage"] = "close"
    is_last = own["is_short"] or own["trials"] >= _trials(search)
    if own["trials"] // search.knobs["full_eval_every"] <= own["full"] and not is_last:
        own["leader"] = None
        return
    own["full"] = own["trials"] // search.knobs["full_eval_every"]
    means: dict[str, float] = {}
    for one in dict.fromkeys(row[2] for row in own["rows"] if row[2]):
        value = search.value(one, [case for case in search.dev if search.is_tried(one, case)])
        if value is not None and not search.is_complete(one):
            means[one] = value
    own["leader"] = max(means, key=lambda one: means[one], default=search.incumbent)
    if not search.evaluate([own["leader"]], search.dev):
        own["is_short"] = True


def _close(search: "Search") -> None:
    """A round ends with a pair that was scored in full; batches in between only go on."""
    own = search.own
    reason = None
    if own["leader"] is not None:
        for one in dict.fromkeys(row[2] for row in own["rows"] if row[2]):
            if one != search.incumbent and search.is_complete(one):
                search.crown(one)
        reason = search.close_round()
    if reason or own["is_short"] or own["trials"] >= _trials(search):
        search.conclude(reason or "max_rounds")
        return
    search.next_round()
    every = search.knobs["refresh_instructions_every"]
    if not every or own["batches"] % every:
        own["stage"] = "trial"
        return
    own["stage"] = "rewrite"
    train: list[Any] = list(search.state["train"])
    search.draw("evidence").shuffle(train)
    search.evaluate([search.incumbent], train[:_EVIDENCE])

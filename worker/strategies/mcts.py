"""A tree of rewrites, grown where it promises most: Monte Carlo tree search over prompts.

PromptAgent (Wang et al. 2023) with UCT (Kocsis and Szepesvári 2006). A simulation goes down from the seed by UCT to
a prompt that was not expanded yet, has children made from its failures, scores them on the first cases, and tells
the way back up the best of them. It is serial by nature: one prompt is expanded at a time.
"""

import math
from typing import TYPE_CHECKING, Any

from shared.splits import draw
from worker.strategies import credit

if TYPE_CHECKING:
    from worker.strategies.search import Search


def begin(search: "Search") -> None:
    reward = search.value(search.seed, _rung(search)) or 0.0
    search.own.update({"stage": "select", "nodes": {search.seed: _node(reward, 0, None)}, "idle": 0, "best": reward})


def advance(search: "Search") -> None:
    stage = search.own["stage"]
    if stage == "select":
        _select(search)
    elif stage == "expand":
        search.own["stage"] = "score"
        at, weights = search.own["at"], search.knobs["operators"]
        slots = range(search.knobs["candidates_per_node"])
        if search.propose([(credit.choose(search, weights, at, slot), at, slot) for slot in slots]) is None:
            search.conclude("budget")
    elif stage == "score":
        search.own["stage"] = "confirm"
        search.own["fresh"] = search.evaluate_affordable(search.children(), _rung(search))
    elif stage == "confirm":
        _confirm(search)
    else:
        _close(search)


def _node(reward: float, depth: int, parent: str | None) -> dict[str, Any]:
    """`is_closed`: nothing below it is left to be expanded."""
    return {"visits": 1, "total": reward, "depth": depth, "parent": parent, "children": [], "is_closed": False}


def _select(search: "Search") -> None:
    """Down to the prompt to expand; what it gets wrong on train cases is found out first."""
    search.own["stage"] = "expand"
    nodes = search.own["nodes"]
    at = search.seed
    while nodes[at]["children"]:
        tried = math.log(nodes[at]["visits"])
        at = max(
            (child for child in nodes[at]["children"] if not nodes[child]["is_closed"]),
            key=lambda child: (
                nodes[child]["total"] / nodes[child]["visits"]
                + search.knobs["exploration_c"] * math.sqrt(tried / nodes[child]["visits"])
            ),
        )
    search.own["at"] = at
    train = list(search.state["train"])
    draw(search.problem.spec["seed"], "evidence").shuffle(train)  # the same in every round: nobody is run on more
    if not search.evaluate([at], train[: search.knobs["evidence_cases"]]):
        search.conclude("budget")


def _rung(search: "Search") -> list[int]:
    cases = search.case_list()
    return cases if search.evaluation["mode"] == "full" else cases[: search.evaluation["min_cases"]]


def _confirm(search: "Search") -> None:
    """Enter the children into the tree; the best of them goes on to all of dev if it may be the best of all."""
    search.own["stage"] = "close"
    own, at = search.own, search.own["at"]
    credit.settle(search, own["fresh"])
    rewards = _distinct(search, own["fresh"])
    depth = own["nodes"][at]["depth"] + 1
    for child, reward in rewards.items():
        own["nodes"][child] = {**_node(reward, depth, at), "is_closed": depth >= search.knobs["max_depth"]}
        own["nodes"][at]["children"].append(child)
    own["leader"] = max(rewards, key=lambda child: rewards[child], default=None)
    best = rewards.get(own["leader"], 0.0)
    own["idle"] = 0 if best > own["best"] else own["idle"] + 1
    own["best"] = max(best, own["best"])
    _tell_ancestors(search, at, best)
    rival = search.value(search.incumbent, _rung(search))
    is_promising = own["leader"] is not None and (rival is None or best >= rival)
    if is_promising and not search.evaluate([own["leader"]], search.dev):
        search.conclude("budget")


def _distinct(search: "Search", fresh: list[str]) -> dict[str, float]:
    """The reward of each child, without those that score as an older sibling does."""
    rewards: dict[str, float] = {}
    bins: dict[int, str] = {}
    for child in fresh:
        reward = search.value(child, _rung(search))
        if reward is None:
            search.decide(child, "pruned", "too many failed calls")
            continue
        twin = bins.setdefault(math.floor(reward / search.knobs["score_dedup_bin"] + 1e-9), child)
        if twin == child:
            rewards[child] = reward
            search.decide(child, "kept", f"in the tree since round {search.round}")
        else:
            search.decide(child, "pruned", f"scores as its sibling {twin[:8]}")
    return rewards


def _tell_ancestors(search: "Search", at: str, reward: float) -> None:
    nodes = search.own["nodes"]
    node: str | None = at
    while node is not None:
        nodes[node]["visits"] += 1
        nodes[node]["total"] += reward
        # One whose children were all refused may be expanded once more, at the price of its lower mean.
        below = [nodes[child]["is_closed"] for child in nodes[node]["children"]]
        nodes[node]["is_closed"] = bool(below) and all(below)
        node = nodes[node]["parent"]


def _close(search: "Search") -> None:
    own, knobs = search.own, search.knobs
    leader = own["leader"]
    if leader is not None and leader != search.incumbent and search.is_complete(leader):
        search.crown(leader)
    reason = search.close_round()
    if own["nodes"][search.seed]["is_closed"] or own["idle"] >= knobs["early_stop_no_improve"]:
        reason = reason or "converged"
    if knobs["token_budget"] is not None and search.state["spent"]["tokens"] >= knobs["token_budget"]:
        reason = reason or "budget_tokens"
    if reason or search.is_exhausted or search.round >= knobs["simulations"]:
        search.conclude(reason or "max_rounds")
        return
    search.next_round()
    own["stage"] = "select"

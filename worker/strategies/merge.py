"""Merging: many rewrites bring sentences, and a model of what each is worth decides which of them a prompt holds.

The seed is rewritten several times from its failures, and all sentences of these rewrites form a pool. Then batch
after batch some prompts that hold a few sentences more or fewer than the best are asked about a few cases each, and
all scores so far say what each sentence is worth (`worth`). With every batch the best is rewritten again from what it
gets wrong. After so many batches a round ends: the best is scored on the whole dev split and may become the incumbent.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from worker.strategies import credit, policy, sentences, worth

if TYPE_CHECKING:
    from worker.strategies.search import Search

# What a sentence is expected to be worth before any call has told, in units of score.
_OF_THE_SEED = 0.02
_ADDED, _FOR_EACH_REWRITE, _AT_MOST = -0.01, 0.02, 0.06  # the more rewrites add it the more, up to
_FORGOTTEN = 0.9  # factor a batch: a rewrite knows what its own parent lacks, and the best is another one soon
_LEFT_OUT, _BY_ACCIDENT, _SHRUNK = 0.2, 0.08, 3  # less where rewrites leave it out more often than one loses a line
_NO_MORE = "budget_proposer_calls"  # the limit without which a search may go on
_REACHED = ("perfect_score", "target_reached")
_FEW = 6  # train cases: who was asked about fewer is not rewritten yet


def begin(search: "Search") -> None:
    pool = sentences.first_pool(search.free_texts(search.seed), level=search.knobs["edit_level"])
    search.own.update({"stage": "evidence", "pool": pool, "held": {search.seed: list(range(len(pool)))}})
    search.own.update({"batch": 0, "leader": search.seed})


def advance(search: "Search") -> None:
    stages = {"evidence": _gather, "expand": _expand, "batch": _batch, "close": _close}
    if search.state["finish_reason"] == _NO_MORE:
        # The pool has not been tried out by then: the search goes on without rewrites, and says so when it ends.
        search.own["has_no_more"], search.state["finish_reason"] = True, None
    if search.is_exhausted and search.own["stage"] != "close":
        search.conclude("budget")
        return
    stages[search.own["stage"]](search)


def _gather(search: "Search") -> None:
    search.own["stage"] = "expand"
    policy.gather_evidence(search, [search.seed])


def _expand(search: "Search") -> None:
    search.own["stage"] = "batch"
    _propose(search, search.knobs["first_proposals"])


def _propose(search: "Search", count: int) -> None:
    """Ask for rewrites of the leader. In a round no two have one slot."""
    if search.own.get("has_no_more"):
        return
    first = search.own.get("slot", 0)
    search.own["slot"] = first + count
    slots = range(first, first + count)
    search.propose([(credit.choose(search, search.knobs["operators"], n), search.own["leader"], n) for n in slots])


def _batch(search: "Search") -> None:
    """Take up what was learned, and ask about the next prompts."""
    own = search.own
    _take_up(search)
    told = _Told(search)
    own["leader"] = told.leader()
    if own["batch"] % search.knobs["batches_per_round"] == 0 and own.get("closed") != own["batch"]:
        own.update({"closed": own["batch"], "stage": "close"} if own["batch"] else {"closed": 0})
        if own["batch"]:
            search.evaluate([own["leader"]], search.dev)
            return
    probes = told.probes()
    own["batch"] += 1
    if not search.ask([search.untried(one, cases) for one, cases in probes]):
        own["stage"] = "close"
        return
    if sum(search.is_tried(own["leader"], case) for case in search.state["train"]) >= _FEW:
        _propose(search, search.knobs["proposals_per_step"])


def _take_up(search: "Search") -> None:
    """The sentences of new rewrites join the pool."""
    own, level = search.own, search.knobs["edit_level"]
    seed = search.free_texts(search.seed)
    for child, item in search.candidates.items():
        if child in own["held"]:
            continue
        own["held"][child] = sentences.read(own["pool"], seed, search.free_texts(child), level=level)
        search.decide(child, "pruned", "its sentences joined the pool, it was not scored by itself")
        parent = set(own["held"][item["parents"][0]])
        for number in parent:
            own["pool"][number]["shown"] += 1
            own["pool"][number]["left_out"] += number not in own["held"][child]
        for number in set(own["held"][child]) - parent:
            own["pool"][number]["told"].append(own["batch"])


def _close(search: "Search") -> None:
    own, before = search.own, search.incumbent
    own["stage"] = "batch"
    if own["leader"] != before and search.is_complete(own["leader"]):
        search.crown(own["leader"])
    reason = search.close_round(sentences=len(own["pool"]))
    if reason or search.is_exhausted or search.round >= search.knobs["max_rounds"]:
        was_short = own.get("has_no_more") and reason not in _REACHED
        search.conclude(_NO_MORE if was_short else reason or "max_rounds")
        return
    search.next_round()
    own["slot"] = 0


class _Told:
    """What the calls so far tell of the pool."""

    def __init__(self, search: "Search") -> None:
        self.search, self.own = search, search.own
        self.pool: sentences.Pool = search.own["pool"]
        self.cases = list(dict.fromkeys([*search.case_list(), *search.state["train"]]))
        # In the order of the candidates: that of the keys of an object of the state means nothing.
        self.held = {one: search.own["held"][one] for one in search.candidates}
        scores = {one: search.by_case(one, self.cases) for one in self.held}
        self.scored = {one: found for one, found in scores.items() if found}
        self.rows = {one: self.row(self.held[one]) for one in self.scored}
        self.lengths = np.array([len(item["text"]) + 1.0 for item in self.pool])
        self.costs = self.lengths / len(search.text(search.seed)) * search.knobs["length_penalty"] / 10
        self.regression = worth.Regression(
            np.array(list(self.rows.values())),
            list(self.scored.values()),
            middle=self.row(self.held[self.own["leader"]]),
            expected=np.array([_expected(item, self.own["batch"]) for item in self.pool]),
            added=np.array([float(not item["is_seed"]) for item in self.pool]),
        )

    def row(self, held: Any) -> worth.Array:
        row = np.zeros(len(self.pool))
        row[list(held)] = 1
        return row

    def values(self) -> dict[str, float]:
        """What each prompt that was asked about is worth by all that is known."""
        known = zip(self.scored, self.regression.values, strict=True)
        return {one: float(value - self.costs @ self.rows[one]) for one, value in known}

    def leader(self) -> str:
        """The best, by all that is known, of those that were asked about enough cases."""
        least = self.search.evaluation["min_cases"]
        values = self.values()
        enough = [one for one, found in self.scored.items() if len(found) >= least]
        return max(enough, key=lambda one: values[one], default=self.search.seed)

    def probes(self) -> list[tuple[str, list[int]]]:
        """The next prompts with the cases they are asked about: first the best by the mean of what is believed,
        which may lead next and therefore gets train cases to fail on, then those of draws from it."""
        knobs, own = self.search.knobs, self.own
        chosen: dict[str, list[int]] = {}
        first = int(own["batch"]) * knobs["probe_cases"] % len(self.cases)
        order = [*self.cases[first:], *self.cases[:first]]
        train = set(self.search.state["train"])
        for place in range(2 * knobs["merges"]):
            if len(chosen) == knobs["merges"]:
                break
            one = self.candidate(place)
            if one is None or one in chosen:
                continue
            fresh = [case for case in order if not self.search.is_tried(one, case)]
            if place == 0:
                fresh.sort(key=lambda case: case not in train)
                tried = len(self.cases) - len(fresh)
                fresh = fresh[: knobs["evidence_cases"]] if tried < 1.5 * knobs["evidence_cases"] else []
            else:
                fresh = fresh[: knobs["probe_cases"]]
            if fresh:
                chosen[one] = fresh
        return list(chosen.items())

    def candidate(self, place: int) -> str | None:
        """The prompt that is best by the mean (the first) or by a draw, a few changes from the best known one."""
        search, knobs = self.search, self.search.knobs
        if not self.pool:
            return None
        start, sums = self.rows[self.own["leader"]], self.regression.mean
        if place:
            drawn = self.regression.draw(search.draw("worth", self.own["batch"], place))
            sums = sums.toward(drawn, knobs["exploration"])
            least = min(knobs["probe_cases"], len(self.cases))
            tried = [one for one, found in self.scored.items() if len(found) >= least]
            own = dict(zip(self.scored, self.regression.own, strict=True))
            start = self.rows[max(tried, key=lambda one: sums.of(self.rows[one]) + own[one])]
        seed = np.array([float(item["is_seed"]) for item in self.pool])
        longest = (knobs["max_growth"] - 1) * len(search.text(search.seed)) + float(self.lengths @ seed)
        changes = self.changes(place)
        found = sums.less(self.costs).best_near(start, changes=changes, lengths=self.lengths, longest=longest)
        return self.admitted([int(number) for number in np.flatnonzero(found)])

    def changes(self, place: int) -> int:
        most = int(self.search.knobs["max_changes"])
        return most if not place else 1 + place % most

    def admitted(self, held: list[int]) -> str | None:
        search, own = self.search, self.own
        known = next((one for one, others in self.held.items() if others == held), None)
        if known is not None:
            return known
        texts = sentences.written(self.pool, search.free_texts(search.seed), held, level=search.knobs["edit_level"])
        if any(not text.strip() for text in texts.values()):
            return None
        parent = own["leader"]
        lineage = {"slot": 0, "batch": own["batch"]}
        texts = {**search.components(search.seed), **texts}
        made = search.admit(texts, parents=[parent], operator="merge", lineage=lineage, genes=search.genes(parent))
        if made:
            own["held"][made] = self.held[made] = held
        return made


def _expected(item: dict[str, Any], batch: int) -> float:
    """What a sentence may be worth, by what the rewrites did."""
    told = sum(_FORGOTTEN ** (batch - at) for at in item["told"])
    value = _OF_THE_SEED if item["is_seed"] else min(_AT_MOST, _ADDED + _FOR_EACH_REWRITE * told)
    left_out = item["left_out"] / (item["shown"] + _SHRUNK)
    return value - _LEFT_OUT * max(0.0, left_out - _BY_ACCIDENT)

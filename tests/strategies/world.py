"""A small pure world for searches: cases, a model that answers them, a proposer, and a driver that pays for calls.

A prompt is worth what its words are worth. Whether it gets a case right is a coin whose side a hash decides,
so the true score of a text is known exactly, and the same request always has the same answer.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared import knobs
from shared.hashing import canonical_json
from tests.strategies import worlds_genes
from worker.strategies import STRATEGIES, search
from worker.strategies.contract import Case, Evaluate, Genes, Problem, Propose, Result, Spent, Step, Strategy, Work
from worker.strategies.placeholders import PLACEHOLDER

SEED_TEXT = "Sort the ticket into one of the three categories.\nAnswer with the category alone.\n\nTicket: {{ ticket }}"
HELPFUL: Mapping[str, str] = {
    "verify": "Always verify the evidence that you were given before deciding.",
    "labels": "The only labels are billing, technical and account.",
    "refund": "Anything about a refund or an invoice counts as billing.",
    "password": "A forgotten password or a locked login counts as account.",
    "outage": "An outage, a crash or an error message counts as technical.",
    "main": "When there are several requests, go by the main one.",
    "quoted": "Skip quoted mail, signatures and greetings entirely.",
    "lowercase": "Write your answer in lowercase without any punctuation.",
}
HARMFUL: Mapping[str, str] = {
    "hurry": "Hurry, the first idea that comes to mind is good enough.",
    "poem": "Explain yourself at length, perhaps in the form of a poem.",
    "guess": "If you are not sure, guess something entirely different.",
}
GAIN = 0.07  # of a helpful word; a harmful one takes as much away
TASK_PRICE = (100, 1_000)  # tokens, nano-dollars
PROPOSAL_PRICE = (500, 20_000)

# Settings that make a run short. A strategy that is not here runs on its defaults.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "random": {"proposals": 9},
    "beam_search": {"beam_width": 2, "expansions_per_beam": 3, "max_rounds": 3, "evidence_cases": 6},
    "iterative": {"max_rounds": 4, "proposals_per_step": 3, "evidence_cases": 6, "max_stall": 2},
    "merge": {
        "max_rounds": 3,
        "batches_per_round": 2,
        "first_proposals": 4,
        "proposals_per_step": 2,
        "merges": 3,
        "probe_cases": 4,
        "evidence_cases": 6,
    },
    "anneal": {
        "epochs": 4,
        "chains": 2,
        "proposals_per_step": 2,
        "evidence_cases": 6,
        "reheat_stall_steps": 2,
        "reheat_max": 1,
    },
    "genetic": {"population_size": 4, "generations": 3, "evidence_cases": 6},
    **worlds_genes.SMALL,
}
# What a strategy does under settings that make it another search: the duties of all strategies hold there too.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "genetic:steady_state": {**SMALL["genetic"], "replacement": "steady_state"},
    "gepa:hybrid": {**worlds_genes.SMALL["gepa"], "frontier": "hybrid"},
}
SEARCHES: Mapping[str, Strategy] = {**STRATEGIES, **{name: STRATEGIES[name.partition(":")[0]] for name in VARIANTS}}
_TOPICS = ("billing", "technical", "account")
_MAX_STEPS = 500


def make_cases(count: int = 40) -> list[Case]:
    return [
        Case(
            ordinal=i,
            inputs={
                "ticket": f"Message {i}: {_digest('ticket', i)[:24]} is the number of my {_TOPICS[i % 3]} contract."
            },
            expected={"category": _TOPICS[i % 3]},
        )
        for i in range(1, count + 1)
    ]


def make_spec(
    strategy: str,
    *,
    knobs_: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    early_stopping: Mapping[str, Any] | None = None,
    budget: Mapping[str, int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """A resolved spec, of a strategy or of a variant; its small knobs and rungs of 4 cases unless said otherwise."""
    small, strategy = VARIANTS.get(strategy, SMALL.get(strategy, {})), strategy.partition(":")[0]
    spec = {
        "strategy": strategy,
        "knobs": knobs.resolve_strategy(strategy, {**small, **(knobs_ or {})}),
        "evaluation": knobs.resolve(knobs.EVALUATION, {"min_cases": 4, **(evaluation or {})}, "/evaluation"),
        "split": knobs.resolve_split(split or {}),
        "early_stopping": knobs.resolve(knobs.EARLY_STOPPING, early_stopping or {}, "/early_stopping"),
        "budget": {"max_task_calls": 600} if budget is None else dict(budget),
        "seed": seed,
    }
    knobs.check_together(spec, evaluation or {})
    return spec


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def placeholder_problem(components: Mapping[str, str]) -> str | None:
    found = {match for text in components.values() for match in PLACEHOLDER.findall(text)}
    return None if found == {"{{ ticket }}"} else f"variables changed to {sorted(found)}"


def constant_price(components: Mapping[str, str], work: Work) -> tuple[int, int]:
    return TASK_PRICE if isinstance(work, Evaluate) else PROPOSAL_PRICE


def questions(work: Work) -> int:
    """One judge is asked about each answer, with two votes."""
    return 2 if isinstance(work, Evaluate) else 0


def tokens_of(components: Mapping[str, str], genes: Genes) -> int:
    return len(worlds_genes.with_genes("\n".join(components.values()), genes).split())


@dataclass(frozen=True)
class World:
    """What the calls of a search answer."""

    cases: Sequence[Case] = field(default_factory=make_cases)
    components: Mapping[str, str] = field(default_factory=lambda: {"template": SEED_TEXT})
    base: float = 0.3  # the true score of a text without a helpful word
    flat: float | None = None  # every score is this
    missing: float = 0.0  # share of task calls that fail
    proposer_fails: bool = False
    # The text of a proposer's answer, in place of the mix of better, worse and broken ones.
    rewrite: Callable[[Propose, str], str] | None = None
    score: Callable[[str, int], float | None] | None = None  # of a text on a case, in place of the coin
    salt: int = 0
    worth: Callable[[set[str]], float] | None = None  # the true score of a text with these words, in place of the sum
    parts: Callable[[str, int], Mapping[str, float]] | None = None  # what each scorer says of a text on a case

    def true_score(self, text: str) -> float:
        found = words(text)
        if self.worth is not None:
            return min(1.0, max(0.0, self.worth(found)))
        gain = GAIN * (len(found & set(HELPFUL)) - len(found & set(HARMFUL)))
        return min(1.0, max(0.0, self.base + gain))

    def problem(self, spec: Mapping[str, Any], **fields: Any) -> Problem:
        given = {
            "price": constant_price,
            "questions": questions,
            "tokens_of": tokens_of,
            "problem_with": placeholder_problem,
            "components": self.components,
        }
        return Problem(spec=spec, cases=self.cases, **(given | fields))

    def answer(self, work: Work, texts: Mapping[str, Mapping[str, str]]) -> Result:
        if isinstance(work, Propose):
            return Result(work.key, output=None if self.proposer_fails else self._proposal(work))
        text = worlds_genes.with_genes("\n".join(texts[work.candidate].values()), work.genes)
        if fraction("missing", self.salt, work.key) < self.missing:
            return Result(work.key)
        score = self._score(text, work)
        if score is None:
            return Result(work.key)
        feedback = "" if score >= 1 else "wrong category"
        other = {"0_first": score, "1_second": (score + work.case % 2) / 2}
        parts = self.parts(text, work.case) if self.parts else other
        return Result(work.key, f"answer {work.case}", score, score >= 1, feedback, parts=parts)

    def _score(self, text: str, work: Evaluate) -> float | None:
        if self.score is not None:
            return self.score(text, work.case)
        if self.flat is not None:
            return self.flat
        return float(fraction("coin", self.salt, text, work.case, work.repeat) < self.true_score(text))

    def _proposal(self, work: Propose) -> str:
        found = re.search(r"<prompt>\n(.*?)\n</prompt>", work.messages[-1]["content"], re.DOTALL)
        assert found, "a request shows the prompt that it is about"
        text = found[1]
        if self.rewrite is not None:
            return self.rewrite(work, text)
        if work.operator == "gradient":
            return "<reasons>\nIt does not say what to do in case of doubt.\n</reasons>"
        if work.operator == "repair" and "{{ ticket }}" not in text:
            return f"<prompt>\n{text}\n\nTicket: {{{{ ticket }}}}\n</prompt>"
        fate, pick = fraction("fate", self.salt, work.key), fraction("pick", self.salt, work.key)
        if fate < 0.1:
            return "I would make it more precise."
        if fate < 0.2:
            return f"<prompt>\n{PLACEHOLDER.sub('the ticket', text)}\nBe precise about it.\n</prompt>"
        pool = HARMFUL if fate < 0.4 else HELPFUL
        fresh = [sentence for word, sentence in pool.items() if word not in words(text)] or ["Be very precise here."]
        better = f"{fresh[int(pick * len(fresh))]}\n{text}"
        return f"Sure:\n```\n{better}\n```" if fate > 0.9 else f"Here it is.\n<prompt>\n{better}\n</prompt>"


def gains_and_loses_some(work: Propose, text: str) -> str:
    """One rewrite may add several sentences, good and bad, so that the best of many draws is no mean opponent."""
    bank = [*HELPFUL.values(), *HARMFUL.values()]
    lines = text.split("\n")
    shown = re.findall(r"<other>\n(.*?)\n</other>", work.messages[-1]["content"], re.DOTALL)
    lines = [*(line for other in shown for line in other.split("\n") if line in bank and line not in lines), *lines]
    new = [sentence for sentence in bank if sentence not in lines and fraction("add", work.key, sentence) < 0.15]
    kept = [line for line in lines if line not in bank or fraction("drop", work.key, line) >= 0.1]
    return "\n".join(["<prompt>", *new, *kept, "</prompt>"])


def worth_in_pairs(found: set[str]) -> float:
    """Deceptive: of each pair of helpful words one alone does harm, and both do more good than two words would."""
    names = list(HELPFUL)
    gain = 0.0
    for one, other in zip(names[::2], names[1::2], strict=True):
        both = (one in found) + (other in found)
        gain += {0: 0.0, 1: -0.03, 2: 0.16}[both]
    return 0.3 + gain - GAIN * len(found & set(HARMFUL))


def worth_behind_a_gate(found: set[str]) -> float:
    """A plateau: without the one word on which the format depends, nothing else helps much."""
    gain = len(found & set(HELPFUL)) - len(found & set(HARMFUL))
    return 0.25 + (GAIN if "lowercase" in found else GAIN / 4) * gain


# Kinds of landscape: what the words of a prompt are worth together.
FAMILIES: Mapping[str, Callable[[set[str]], float] | None] = {
    "additive": None,
    "deceptive": worth_in_pairs,
    "plateau": worth_behind_a_gate,
}


def family(name: str, salt: int) -> World:
    return World(cases=make_cases(100), salt=salt, rewrite=gains_and_loses_some, worth=FAMILIES[name])


@dataclass
class Run:
    """A search that was driven: every step that it decided, and each call that was paid, once."""

    steps: list[Step]
    paid: dict[str, Work]
    emitted: list[Work]

    @property
    def state(self) -> dict[str, Any]:
        return self.steps[-1].state

    @property
    def canonical(self) -> str:
        return canonical_json(self.state)

    @property
    def result(self) -> dict[str, Any]:
        return dict(self.state["result"])

    @property
    def best_text(self) -> str:
        return next(text for digest, text in self.texts.items() if digest == self.state["result"]["best"])

    @property
    def texts(self) -> dict[str, str]:
        return {item["hash"]: "\n".join(item["components"].values()) for item in self.state["candidates"]}

    @property
    def evaluations(self) -> list[Evaluate]:
        return [work for work in self.emitted if isinstance(work, Evaluate)]

    @property
    def proposals(self) -> list[Propose]:
        """The first requests; those that send a broken answer back are `repairs`."""
        return [work for work in self.emitted if isinstance(work, Propose) and not work.repair_of]

    @property
    def repairs(self) -> list[Propose]:
        return [work for work in self.emitted if isinstance(work, Propose) and work.repair_of]

    @property
    def events(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [event for step in self.steps for event in step.events]

    def cases_of(self, step: int, *, seed: bool = True) -> dict[str, list[int]]:
        """The cases that a step asked each candidate to be scored on."""
        found: dict[str, list[int]] = {}
        for work in self.steps[step].work:
            if isinstance(work, Evaluate) and (seed or work.candidate != self.state["candidates"][0]["hash"]):
                found.setdefault(work.candidate, []).append(work.case)
        return found


Deliver = Callable[[list[Result]], list[Result]]


def drive(
    world: World,
    problem: Problem,
    strategy: Strategy,
    *,
    deliver: Deliver = list,
    save: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    used: float = 1.0,
    resume: tuple[Run, int] | None = None,
    late: int | None = None,
) -> Run:
    """Start and step to the end. `save` is what becomes of a state between two steps, `deliver` of the results.

    Calls settle at the share `used` of their bound in tokens and money. `resume` begins at step n of an
    earlier run, with nothing but what a database would hold of it. Time is up at step `late`.
    """
    if resume is None:
        run = Run([search.start(problem, strategy)], {}, [])
    else:
        earlier, at = resume
        before = [work for step in earlier.steps[:at] for work in step.work]
        run = Run(earlier.steps[: at + 1], {work.key: work for work in before}, list(before))
    while not run.steps[-1].finished:
        assert len(run.steps) < _MAX_STEPS, "the run does not end"
        last = run.steps[-1]
        run.emitted += last.work
        run.paid |= {work.key: work for work in last.work}
        texts = {item["hash"]: item["components"] for item in last.state["candidates"]}
        results = deliver([world.answer(work, texts) for work in last.work])
        spent = spent_on(problem, texts, run.paid.values(), used=used)
        run.steps.append(search.step(problem, strategy, save(last.state), results, spent, late=len(run.steps) == late))
    return run


def run_search(strategy: str, world: World | None = None, **settings: Any) -> Run:
    """One whole run of a strategy, or of a variant, by its name, on its small settings."""
    world = world or World()
    return drive(world, world.problem(make_spec(strategy, **settings)), SEARCHES[strategy])


def spent_on(
    problem: Problem, texts: Mapping[str, Mapping[str, str]], works: Iterable[Work], *, used: float = 1.0
) -> Spent:
    """What these calls cost: by default their upper bounds."""
    counts, tokens, nano, judge_calls = [0, 0], 0, 0, 0
    for work in works:
        is_proposal = isinstance(work, Propose)
        subject = work.parent if isinstance(work, Propose) else work.candidate
        more_tokens, more_nano = problem.price(texts[subject], work)
        counts[is_proposal] += 1
        tokens += int(more_tokens * used)
        nano += int(more_nano * used)
        judge_calls += problem.questions(work)
    return Spent(*counts, tokens, nano, judge_calls)


def _digest(*key: Any) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()


def fraction(*key: Any) -> float:
    """A number in [0, 1) that the key decides."""
    return int(_digest(*key)[:13], 16) / 16**13


if __name__ == "__main__":
    run = run_search(sys.argv[1])
    sys.stdout.write(canonical_json({"state": run.state, "paid": list(run.paid)}))

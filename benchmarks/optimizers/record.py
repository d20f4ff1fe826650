"""The record of a run: every call in its order, kept where it is answered, and the curve that it draws."""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.optimizers import formats, lexicon, writer
from benchmarks.optimizers.worlds import World

TASK, PROPOSER = "task", "proposer"
_WEIGHT = 16  # cases' worth of belief that a prompt is as good as the seed, before it has been tried


@dataclass
class Run:
    """One world while it is searched. Every call goes through `call`, whoever makes it and however."""

    world: World
    level: str
    calls: list[dict[str, Any]] = field(default_factory=list)
    prompts: dict[str, dict[str, Any]] = field(default_factory=dict)
    _occurred: Counter[str] = field(default_factory=Counter)
    _cases: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cases = {case.name: number for number, case in enumerate(self.world.cases)}

    def call(
        self, role: str, messages: Sequence[Mapping[str, str]], *, temperature: float, sample: int | None = None
    ) -> str:
        """What is answered. The same request is answered alike at temperature 0; above it each time anew, by its
        sample number where it has one, else by how often it was made."""
        digest = _digest(role, [[str(each["role"]), str(each["content"])] for each in messages])
        if sample is None:
            sample = self._occurred[digest]
        self._occurred[digest] += 1
        if role == PROPOSER:
            chance = random.Random(_digest(self.world.name, self.level, digest, sample))
            written = writer.answer(self.world, self.level, messages, chance)
            asked = formats.read(messages)
            points = lexicon.points_in(written) if asked.wants_prompt else None
            self.calls.append({"role": role, "points": None if points is None else sorted(points)})
            return written
        case, prompt = self._split(messages)
        text, right = self.world.answer(prompt, case, sample if temperature > 0 else 0)
        key = _digest(prompt)
        if key not in self.prompts:
            made = sorted(lexicon.points_in(prompt))
            self.prompts[key] = {"text": prompt, "points": made, "true": self.world.true_score(prompt)}
        self.calls.append({"role": role, "prompt": key, "case": case, "right": right})
        kind, fields = formats.task_kind(messages)
        return formats.written(kind, fields, lambda _: text) if kind in ("markers", "json") else text

    def told(self) -> dict[str, Any]:
        return {"calls": self.calls, "prompts": self.prompts}

    def _split(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, str]:
        """The case that is asked about, which stands last, and everything else."""
        whole = "\n".join(str(each["content"]) for each in messages)
        places = {whole.rfind(name): number for name, number in self._cases.items() if name in whole}
        if not places:
            raise KeyError("the request holds no case")
        case = places[max(places)]
        text = self.world.cases[case].text
        head, _, tail = whole.rpartition(text)
        return case, head + tail


@dataclass(frozen=True)
class Curve:
    """What a run had found after each of its calls: the gain of its incumbent, as a share of what there is to gain.

    The incumbent is read from the record alone, by one rule for all: the prompt with the best mean so far, where
    each mean is drawn toward what the seed is worth with the weight of 16 cases. No search is asked what it believes.
    """

    gains: Sequence[float]  # one a call, as far as the run went
    budget: int

    @property
    def calls_to_80(self) -> int:
        """The first call after which at least 80 % of the gain is had; the budget where it never is."""
        return next((n for n, gain in enumerate(self.gains[: self.budget], 1) if gain >= 0.8), self.budget)

    @property
    def reached(self) -> bool:
        return any(gain >= 0.8 for gain in self.gains[: self.budget])

    @property
    def regret(self) -> float:
        """The mean over all calls of the budget of what is missing; a run that ends keeps what it has."""
        gains = list(self.gains[: self.budget]) or [0.0]
        gains += [gains[-1]] * (self.budget - len(gains))
        return sum(1 - gain for gain in gains) / self.budget


def curve(world: World, told: Mapping[str, Any], *, budget: int) -> Curve:
    seed, attainable = world.seed_score, world.best_score - world.seed_score
    prior = world.seed_score_on_given_cases
    rights: Counter[str] = Counter()
    tries: Counter[str] = Counter()
    seen: set[tuple[str, int]] = set()
    believed = {"": prior}  # the seed, which need not be tried first
    gains, holder = [], ""
    for call in told["calls"][:budget]:
        if call["role"] == TASK and (call["prompt"], call["case"]) not in seen:
            key = call["prompt"]
            seen.add((key, call["case"]))
            tries[key] += 1
            rights[key] += call["right"]
            believed[key] = (rights[key] + _WEIGHT * prior) / (tries[key] + _WEIGHT)
            if believed[key] > believed[holder] or key == holder:
                holder = max(believed, key=lambda one: believed[one])
        true = told["prompts"][holder]["true"] if holder else seed
        gains.append((true - seed) / attainable if attainable > 0 else 0.0)
    return Curve(gains, budget)


def counts(told: Mapping[str, Any]) -> dict[str, int]:
    roles = Counter(call["role"] for call in told["calls"])
    return {TASK: roles[TASK], PROPOSER: roles[PROPOSER], "total": len(told["calls"])}


def tried(told: Mapping[str, Any]) -> float | None:
    """The share of proposed prompts that were then asked about a case: near 0 where a search cannot read them."""
    proposed = [call["points"] for call in told["calls"] if call["role"] == PROPOSER and call["points"] is not None]
    asked_about = [prompt["points"] for prompt in told["prompts"].values()]
    return sum(points in asked_about for points in proposed) / len(proposed) if proposed else None


def _digest(*key: Any) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()

"""The values that cross the border of a search, and what a strategy is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from shared.hashing import hash_of

if TYPE_CHECKING:
    from worker.strategies.search import Search


@dataclass(frozen=True)
class Case:
    """A test case as the search sees it: its ordinal names it, in splits, ties and sums."""

    ordinal: int
    inputs: Mapping[str, Any]
    expected: Any
    group: str | None = None
    weight: float = 1.0
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Genes:
    """What a candidate is besides its texts. Most have none, and are their texts alone."""

    demos: Sequence[Mapping[str, Any]] = ()  # {"case": ordinal of a train case, "output": the answer shown}
    params: Mapping[str, Any] = field(default_factory=dict)  # settings in place of the run's; `model_name` too

    def __post_init__(self) -> None:
        object.__setattr__(self, "demos", tuple(self.demos))  # from JSON it is a list

    def __bool__(self) -> bool:
        return bool(self.demos or self.params)

    @property
    def cases(self) -> frozenset[int]:
        """The cases that it shows, on which it is therefore never scored."""
        return frozenset(demo["case"] for demo in self.demos)

    def described(self) -> dict[str, Any]:
        """As JSON; an empty part is absent, so that what was written before there were genes is unchanged."""
        parts = {"demos": [dict(demo) for demo in self.demos], "params": dict(self.params)}
        return {name: part for name, part in parts.items() if part}


NO_GENES = Genes()


def identity(components: Mapping[str, str], genes: Genes) -> str:
    """The hash by which a candidate is named: of its texts, and of its genes where it has any."""
    return hash_of({"components": dict(components), **genes.described()} if genes else dict(components))


@dataclass(frozen=True)
class Evaluate:
    """Run a candidate on a case. `repeat` numbers wanted answers to the same request."""

    candidate: str
    case: int
    repeat: int
    genes: Genes = field(default=NO_GENES, compare=False)  # the candidate's, which its hash covers

    @cached_property
    def key(self) -> str:
        return hash_of(["evaluate", self.candidate, self.case, self.repeat])


@dataclass(frozen=True)
class Propose:
    """Ask a model to write a candidate. `slot` makes identical requests of one step different calls."""

    operator: str
    parent: str
    component: str
    messages: Sequence[Mapping[str, str]]
    round: int
    slot: int
    evidence: tuple[int, ...] = ()  # ordinals of the train cases that it shows
    mates: tuple[str, ...] = ()  # other candidates that it shows, who are parents too
    repair_of: str = ""  # the operator whose answer is to be repaired
    attempt: int = 0  # of repairs, from 1
    origin: str = ""  # of a repair: the key of what was asked for at first

    @cached_property
    def key(self) -> str:
        return hash_of(["propose", self.operator, list(self.messages), self.round, self.slot])


Work = Evaluate | Propose


@dataclass(frozen=True)
class Result:
    """What came of one unit of work. `score` is None when the call failed: missing is not 0."""

    key: str
    output: str | None = None
    score: float | None = None
    passed: bool = False
    feedback: str = ""
    nano: int = 0  # what the answer cost and how long it took, as its execution says
    latency_ms: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)  # what the score is made of, by scorer


@dataclass(frozen=True)
class Spent:
    """Settled logical spend: each call of the ledger once, however often crashes repeated it."""

    task_calls: int = 0
    proposer_calls: int = 0
    tokens: int = 0
    nano: int = 0
    judge_calls: int = 0


@dataclass(frozen=True)
class Problem:
    """Everything that decides a search and does not change while it runs."""

    spec: Mapping[str, Any]  # strategy, knobs, evaluation, split, early_stopping, budget, seed: resolved
    components: Mapping[str, str]  # the seed candidate's texts
    cases: Sequence[Case]  # in order of ordinal
    # The upper bound of one unit of work: (tokens, nano-dollars). Pure: the same work, the same bound.
    price: Callable[[Mapping[str, str], "Work"], tuple[int, int]]
    # The tokens of a candidate's own messages at most, without the inputs of a case.
    tokens_of: Callable[[Mapping[str, str], "Genes"], int]
    # Why a candidate cannot be a prompt (does not compile, other variables); None when it can.
    problem_with: Callable[[Mapping[str, str]], str | None]
    # Why a candidate of these texts cannot have these genes (a model that takes no such setting); None when it can.
    problem_with_genes: Callable[[Mapping[str, str], Genes], str | None] = lambda components, genes: None
    # How many calls judging the answer of a unit of work takes at most.
    questions: Callable[["Work"], int] = lambda work: 0
    # The keys of work that has been paid for by the run that this one continues, and costs nothing here.
    paid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Step:
    """What a step decides: the next state, and the work that must end before the next step."""

    state: dict[str, Any]  # JSON
    work: Sequence[Work] = ()
    events: Sequence[tuple[str, Mapping[str, Any]]] = field(default=())

    @property
    def finished(self) -> bool:
        return self.state["phase"] == "done"


class Strategy(Protocol):
    """The module of a strategy. It keeps its own JSON in `search.own` and is called when no work is open."""

    def begin(self, search: "Search") -> None:
        """Called once, when the baseline has been scored."""

    def advance(self, search: "Search") -> None:
        """Look at the scores, then ask for work or end with `search.conclude(reason)`."""

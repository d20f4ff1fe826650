"""How much to ask: little in `make test`, much in `make fuzz`. They go from one to the other by the environment."""

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Self

VARIABLE = "PROMPTMILL_FUZZ"


@dataclass(frozen=True)
class Options:
    """`examples`: random requests per operation. `chains`: of requests that use each other's answers.

    `only`: parts of operations' names (`GET /v1/projects`). `is_long`: ask what the short form leaves out, and report.
    """

    examples: int = 5
    seed: int = 1
    chains: int = 0
    only: tuple[str, ...] = ()
    is_long: bool = False

    @classmethod
    def stored(cls, environ: Mapping[str, str]) -> Self:
        return cls(**json.loads(environ.get(VARIABLE, "{}")))

    def store(self, environ: MutableMapping[str, str]) -> None:
        environ[VARIABLE] = json.dumps(asdict(self))

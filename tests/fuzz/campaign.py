"""One campaign of schemathesis against the application, in this process, with what it finds as plain values.

The operations come from the application's own /openapi.json, so a new route is fuzzed by itself. Generated addresses
and bodies rarely name anything that exists; `Aim` puts that in.
"""

import contextlib
import itertools
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import schemathesis
from flask import Flask
from hypothesis.errors import HypothesisWarning
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from schemathesis.hooks import GLOBAL_HOOK_DISPATCHER

from tests.api.routes import READ_BY_POST
from tests.fuzz.aim import Aim
from tests.fuzz.options import Options
from tests.support import API_KEY, Api

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
# `If-Match` of a bad form matches nothing, which is a 412.
REFUSALS = "400 401 403 404 405 406 409 412 413 415 422".split()
# Nobody works here, and that is what it must say.
NO_FAULTS = {
    ("GET /ready", "not_a_server_error"),  # 503 is what it is for
    # It is asked when the queues have been told to drain: 503, as is documented.
    ("POST /api/v1/prompt-studio/prompts/execute", "not_a_server_error"),
    # With on_error=skip it takes a body with rows that are none, and says which.
    ("POST /v1/datasets/{name}/cases", "negative_data_rejection"),
}
# What they name stands in a query, or is gone when they are asked at last: tests/api and tests/compat ask for it.
NOT_AIMED_AT = tuple(
    f"{method} {path}"
    for method, path in (
        ("DELETE", "/v1/datasets/{name}/cases/{test_case_id}"),
        *(("GET", rest) for rest in ("/v1/events", "/v1/evaluations/{evaluation_id}/compare")),
        *((method, "/api/v1/") for method in ("GET", "POST", "PUT", "DELETE")),
    )
)
# What changes things at the older addresses comes last: they rename and close what the newer ones are asked about.
KINDS = ("read", "create", "change", "steer", "delete", "older")
CHAINS = "chains"
REFUSED_UNSEEN = {400, 401, 404, 405, 413, 415, 422}
ADVICE = {
    "not_a_server_error": "A bug: find the request id's traceback in the log, fix the code, leave a test named for it.",
    "status_code_conformance": (
        "The document does not list this status for the operation: app/statuses.py derives them from the decorators;"
        " what it cannot see is declared at the view with @blp.fails(...)."
    ),
    "content_type_conformance": "Answer in the type that the view's @blp.response declares (content_type=...).",
    "response_schema_conformance": (
        "The answer is not what the view's @blp.response schema says: most often a field that may be null without"
        " allow_none, or one that is in the answer and not in the schema."
    ),
    "negative_data_rejection": (
        "A request that the document forbids was accepted: make the schema in app/api as strict as the document,"
        " or the document as lenient as the schema."
    ),
    "unsupported_method": "An unknown method must be a 405 with Allow.",
}


@dataclass(frozen=True)
class Finding:
    """A check that failed, and the request that shows it."""

    operation: str
    check: str
    message: str
    curl: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.check}: {self.message}\n  {self.curl}\n  {ADVICE.get(self.check, '')}"


@dataclass
class Report:
    """What was asked and answered, by operation (`GET /v1/projects`), and what was found."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    chains: int = 0
    findings: list[Finding] = field(default_factory=list)

    def requests(self) -> int:
        return sum(counted.total() for counted in self.statuses.values())

    def never_reached(self) -> list[str]:
        """Operations that refused every request before they had looked at what it is about."""
        return sorted(
            name
            for name, counted in self.statuses.items()
            if REFUSED_UNSEEN.issuperset(counted) and not name.startswith(NOT_AIMED_AT)
        )

    def distinct(self) -> list[Finding]:
        """One finding for each operation, check and message."""
        return list({(one.operation, one.check, one.message): one for one in reversed(self.findings)}.values())[::-1]


def run(
    app: Flask,
    owner: Api,
    options: Options,
    *,
    wrong: bool = True,
    at_random: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """Every operation: what can be derived from the document (`wrong`: wrong requests too), then `at_random`.

    Reads come first and deletions last, so that what was seeded is there as long as it is needed; and then chains of
    requests, each of which uses what the one before it answered. `tell` is told how far it has come and what it finds.
    """
    document = _without_default(app.test_client().get("/openapi.json").get_json())
    report, aim, said = Report(), Aim(app, owner), set[str]()

    def ask(kind: str, options: Options) -> None:
        config = _config(options, stateful=kind == CHAINS, wrong=wrong, at_random=at_random)
        schema = schemathesis.openapi.from_dict(document, config=config)
        schema.app = app
        aim.look()
        chosen = schema.include(_filter(kind, options.only))
        selected = chosen.statistic.operations.selected
        asked: set[tuple[str, str]] = set()
        with warnings.catch_warnings(), _hooked(aim):
            warnings.simplefilter("ignore", HypothesisWarning)  # of the size of its own notes
            for event in engine.from_schema(chosen).execute():
                _take(event, report)
                for found in [str(one) for one in report.distinct() if str(one) not in said]:
                    said.add(found)
                    tell(found)
                if isinstance(event, events.ScenarioFinished) and (event.phase.value, event.label) not in asked:
                    told = f"{report.requests()} requests, {len(report.findings)} findings"
                    if event.label is None:
                        tell(f"{kind}, {report.chains} asked; {told}")
                        continue
                    asked.add((event.phase.value, event.label))
                    place = f"{sum(phase == event.phase.value for phase, _ in asked)} of {selected}: {event.label}"
                    tell(f"{kind}, {event.phase.value.lower()}, {place}; {told}")

    for kind in KINDS:
        ask(kind, options)
    # Hypothesis ends when the same request is answered differently, as it is once the first has changed something.
    before, seeds = -1, itertools.count(options.seed)
    while before < report.chains < options.chains:
        before = report.chains
        ask(CHAINS, replace(options, seed=next(seeds), chains=options.chains - before))
    return report


def _without_default(document: Any) -> Any:
    """It would document every status."""
    for item in document["paths"].values():
        for method, operation in item.items():
            if method != "parameters":
                del operation["responses"]["default"]
    return document


@contextlib.contextmanager
def _hooked(aim: Aim) -> Iterator[None]:
    """This hook exists for the whole process only."""

    def before_call(context: Any, case: Any, **_: Any) -> None:
        aim.turn(case)

    schemathesis.hook(before_call)
    try:
        yield
    finally:
        GLOBAL_HOOK_DISPATCHER.unregister(before_call)


def _is_reading(method: str, path: str) -> bool:
    return method == "get" or (method.upper(), re.sub("{", "<", re.sub("}", ">", path))) in READ_BY_POST


def _is_steering(method: str, path: str) -> bool:
    """What it stops is stopped for all who come after it."""
    return path.startswith("/v1/queues/") or path.endswith("archive")


def _kind(method: str, path: str) -> str:
    if _is_reading(method, path):
        return "read"
    if method == "delete":
        return "delete"
    if _is_steering(method, path):
        return "steer"
    return "change" if "{" in path else "create"


def _filter(kind: str, only: Collection[str]) -> Callable[[Any], bool]:
    def is_chosen(context: Any) -> bool:
        operation = context.operation
        named = not only or any(part in operation.label for part in only)
        own = _kind(operation.method.lower(), operation.path)
        if operation.path.startswith("/api/v1/") and own != "read":
            own = "older"
        return named and kind in (CHAINS, own)

    return is_chosen


def _config(options: Options, *, stateful: bool, wrong: bool, at_random: bool) -> SchemathesisConfig:
    generation: dict[str, Any] = {
        "max-examples": options.chains if stateful else options.examples,
        "database": "none",
        "no-shrink": True,
        "with-security-parameters": False,
    }
    coverage: dict[str, Any] = {"enabled": not stateful, "generation": {"mode": "all" if wrong else "positive"}}
    if not options.is_long:
        coverage["unexpected-methods"] = ["trace"]
    # What was answered is asked for in turn; it has ids that differ from run to run.
    fuzzing = {"enabled": at_random and not stateful, "extra-data-sources": {"responses": options.is_long}}
    return SchemathesisConfig.from_dict(
        {
            "seed": options.seed,
            "headers": {"X-API-Key": API_KEY},
            "continue-on-failure": True,
            "generation": generation,
            "phases": {
                "examples": {"enabled": False},
                "coverage": coverage,
                "fuzzing": fuzzing,
                "stateful": {"enabled": stateful},
            },
            "checks": {
                "enabled": False,
                **{name: {"enabled": True} for name in CHECKS},
                "negative_data_rejection": {"enabled": True, "expected-statuses": REFUSALS},
            },
            "output": {"sanitization": {"enabled": False}, "truncation": {"enabled": False}},
        }
    )


def _take(event: events.EngineEvent, report: Report) -> None:
    if isinstance(event, events.NonFatalError):
        report.findings.append(Finding(event.label, "engine", str(event.info), ""))
    if not isinstance(event, events.ScenarioFinished):
        return
    recorder = event.recorder
    report.chains += event.label is None and bool(recorder.cases)
    for case_id, node in recorder.cases.items():
        interaction = recorder.interactions.get(case_id)
        label = node.value.operation.label
        counted = report.statuses.setdefault(label, Counter())
        if interaction is not None and interaction.response is not None:
            counted[interaction.response.status_code] += 1
        for check in recorder.checks.get(case_id, []):
            if check.failure_info is not None and (label, check.name) not in NO_FAULTS:
                failure = check.failure_info.failure
                message = f"{failure.title}: {failure.message}".split("\n\nValidated against")[0]
                if _was_not_sent(message, node.value):
                    continue
                report.findings.append(Finding(label, check.name, message, check.failure_info.code_sample))


def _was_not_sent(message: str, case: Any) -> bool:
    """Whether what is called wrong is a query parameter that became an object: of it the keys are written, if any."""
    wrong = re.search(r"parameter `(\w+)` in query", message)
    return wrong is not None and isinstance((case.query or {}).get(wrong[1]), dict)


def show(report: Report, database: str) -> None:
    """For a terminal: a JSON line for each operation, then what was found."""
    for operation, counted in sorted(report.statuses.items()):
        found = sum(one.operation == operation for one in report.distinct())
        line = {
            "database": database.partition(":")[0],
            "operation": operation,
            "statuses": dict(sorted(counted.items())),
        }
        print(json.dumps({**line, "found": found}))
    for one in report.distinct():
        print(one)
    asked = f"{report.requests()} requests to {len(report.statuses)} operations, {report.chains} chains"
    print(f"{asked}, {len(report.distinct())} findings")

"""Plain helpers for tests: a small HTTP client, factories with only the fields that matter, a drain."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.factory import create_app
from shared import db
from shared.domain import leases
from shared.models import JobKind, Queue
from worker.recording import record
from worker.simulator.knowledge import SHIPPED_ANSWERS
from worker.steps import Canceled
from worker.tasks import STEPS

API_KEY = "pm_test-key"
OWNER = "test:1"
LEASE_SECONDS = 60.0
MODEL = {"provider": "simulated", "model_name": "simulated-small"}


@lru_cache
def client() -> FlaskClient:
    """The API of this process, made once: that takes a quarter of a second."""
    return create_app().test_client()


class Api:
    """Requests with an API key. Each verb returns the response; `expect` also checks the status."""

    def __init__(self, client: FlaskClient, key: str) -> None:
        self._client = client
        self._key = key

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = {"X-API-Key": self._key, **options.pop("headers", {})}
        if body is not None:
            options |= {"data": json.dumps(body), "content_type": "application/json"}
        return self._client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.request("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.request("PUT", path, body, **options)

    def expect(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> Any:
        answer = self.request(method, path, body, **options)
        assert answer.status_code == status, (answer.status_code, answer.get_data(as_text=True))
        return answer.get_json()


class Drain:
    """Claims and runs due jobs here, through the same claim, steps and recording as a worker."""

    def __call__(self, *, most: int = 10_000) -> int:
        """Until none is due; how many ran."""
        count = 0
        while count < most:
            claimed = self.claim(limit=min(50, most - count))
            if not claimed:
                break
            record(STEPS, self.outcomes(claimed))
            count += len(claimed)
        return count

    def claim(self, *, owner: str = OWNER, limit: int = 50) -> list[leases.Lease]:
        found: list[leases.Lease] = []
        with db.reading() as session:
            due = leases.waiting(session, list(Queue)).queues
        for queue in (queue for queue in Queue if queue in due):
            if room := limit - len(found):
                with db.transaction() as session:
                    claim = leases.claim(session, owner, queue=queue, limit=room, lease_seconds=LEASE_SECONDS)
                found += claim.leases
        return found

    def run(self, lease: leases.Lease) -> Any:
        outcome = self.outcome(lease)
        record(STEPS, [(lease, outcome)])
        return outcome

    def outcome(self, lease: leases.Lease) -> Any:
        ((_, outcome),) = self.outcomes([lease])
        return outcome

    def outcomes(self, claimed: Iterable[leases.Lease]) -> list[tuple[leases.Lease, Any]]:
        """What each came to; as in a worker, what jobs of a kind need is read at once."""
        by_kind: defaultdict[JobKind, list[leases.Lease]] = defaultdict(list)
        for lease in claimed:
            by_kind[JobKind(lease.kind)].append(lease)
        found: list[tuple[leases.Lease, Any]] = []
        for kind, held in by_kind.items():
            step = STEPS[kind]
            with db.reading() as session:
                loaded: Mapping[int, Any] = step.load(session, held)
            for lease in held:
                canceled = lease.job_id not in loaded
                found.append((lease, Canceled(started=False) if canceled else step.run(lease, loaded[lease.job_id])))
        return found


class Worker:
    """Drains the queues in a thread of this process while a request waits."""

    def __init__(self, drain: Drain) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(drain,))

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self, drain: Drain) -> None:
        while not self._stop.wait(0.01):
            drain()


def waits_for_a_lock() -> bool:
    """Whether a transaction waits for another. On SQLite it does from its first moment: there is one writer."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with db.reading() as session:
        return not db.is_postgres(session) or bool(session.scalar(sa.text(waiting)))


def make_prompt(api: Api, name: str = "greeter", *, template: str = "Say hello to {{ name }}.", **fields: Any) -> Any:
    return api.expect(200, "PUT", f"/v1/prompts/{name}", {"template_source": template, "set_active": True, **fields})


def run_body(name: str = "greeter", **fields: Any) -> dict[str, Any]:
    return {"prompt_name": name, "variables": {"name": "Ada"}, "model": MODEL, **fields}


def batch_body(names: Iterable[str], **fields: Any) -> dict[str, Any]:
    """One item for each of these names; all else is given once."""
    return {
        "items": [{"variables": {"name": name}} for name in names],
        "prompt_name": "greeter",
        "model": MODEL,
        **fields,
    }


def pointers(answer: TestResponse) -> list[str]:
    """The fields that a problem names, or an error in the envelope of an older prefix."""
    if answer.mimetype == "application/json" and not answer.get_json().get("success", True):
        more = answer.get_json().get("metadata") or answer.get_json()["details"]
        return [error["pointer"] for error in more.get("errors", [])]
    assert answer.mimetype == "application/problem+json", answer.get_data(as_text=True)
    return [error["pointer"] for error in answer.get_json().get("errors", [])]


def tickets(count: int = 40) -> list[dict[str, Any]]:
    """The first cases of the shipped dataset, which the simulated model knows the answers to."""
    lines = SHIPPED_ANSWERS.read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


TRIAGE = (
    'Reply with JSON like {"category": "...", "priority": "..."}.\n'
    "Categories: billing, account_access, bug, how_to, feature_request, cancellation, data_privacy.\n"
    "Priorities: low, normal, high, urgent.\n\nTicket:\n{{ ticket }}"
)


def make_triage(api: Api, *, cases: int = 40, template: str = TRIAGE) -> None:
    """A prompt and a dataset to evaluate and optimize."""
    model = {**MODEL, "params": {"temperature": 0.0, "max_new_tokens": 60}}
    make_prompt(api, "triage", template=template, model=model)
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    api.expect(201, "POST", "/v1/datasets/tickets/cases", tickets(cases))


def evaluation_body(**fields: Any) -> dict[str, Any]:
    return {"prompt_name": "triage", "dataset": "tickets", "scorers": [{"type": "json_fields"}], **fields}


def optimization_body(**fields: Any) -> dict[str, Any]:
    return {
        **evaluation_body(),
        "strategy": "beam_search",
        "knobs": {"beam_width": 2, "expansions_per_beam": 2, "max_rounds": 2, "evidence_cases": 6},
        "evaluation": {"min_cases": 6},
        "budget": {"max_cost_usd": 1.0},
        **fields,
    }

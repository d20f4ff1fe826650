"""Work for a fleet: executions submitted over HTTP, and what has become of them."""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator

import httpx2
import sqlalchemy as sa

from shared.models import Execution
from tests.faults.fleet import Fleet
from tests.servers import wait_until

MODEL = {"provider": "openai", "model_name": "gpt-4o-mini", "params": {"temperature": 0.0, "max_new_tokens": 20}}
PROMPT = "fault-work"
FEEDERS = 2
REFUSED = (400, 401, 403, 404, 422)  # no asking again will help


class Work:
    """Executions of one scenario, which share a correlation id. Each asks the provider something else."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.tag = f"{name}-{uuid.uuid4().hex[:8]}"
        self.accepted: set[uuid.UUID] = set()
        self._fleet = fleet
        self._lock = threading.Lock()
        self._numbers = 0
        template = {"template_source": "{{ tag }} number {{ number }}", "set_active": True, "model": MODEL}
        self.call("PUT", f"/v1/prompts/{PROMPT}", template)

    @property
    def executions(self) -> sa.Select[tuple[Execution]]:
        return sa.select(Execution).where(Execution.correlation_id == self.tag)

    def submit(self, count: int = 1, *, marker: str = "") -> list[uuid.UUID]:
        """Returns when each has been accepted, however often that had to be asked."""
        return [self._submit(marker) for _ in range(count)]

    @contextlib.contextmanager
    def flowing(self, *, at_most_open: int) -> Iterator[None]:
        """Meanwhile there is always something to do, and never a long queue: what a fault puts back runs soon."""
        done = threading.Event()

        def feed() -> None:
            while not done.is_set():
                room = at_most_open - self.open()
                self.submit(min(8, max(0, room)))
                if room <= 0:
                    done.wait(0.05)

        feeders = [threading.Thread(target=feed, daemon=True) for _ in range(FEEDERS)]
        for feeder in feeders:
            feeder.start()
        try:
            yield
        finally:
            done.set()
            for feeder in feeders:
                feeder.join()

    def open(self) -> int:
        statement = "SELECT count(*) FROM executions WHERE correlation_id = :tag AND state IN ('queued', 'running')"
        return int(str(self._fleet.scalars(statement, tag=self.tag)[0]))

    def until(self, count: int) -> None:
        """Until so many have been accepted."""
        wait_until(lambda: len(self.accepted) >= count, f"{count} jobs are accepted", seconds=900, every=0.1)

    def drain(self, seconds: float) -> None:
        """Until all have ended, or that long: what is open then is lost."""
        deadline = time.monotonic() + seconds
        while self.open() and time.monotonic() < deadline:
            time.sleep(0.1)

    def call(self, method: str, path: str, body: object, **headers: str) -> "httpx2.Response":
        """Asks until it is accepted: with an Idempotency-Key that never makes two of one."""
        answers: list[httpx2.Response] = []

        def asked() -> bool:
            with contextlib.suppress(httpx2.TransportError):
                answers.append(self._fleet.api.request(method, path, json=body, headers=headers))
            assert not answers or answers[-1].status_code not in REFUSED, answers[-1].text
            return bool(answers) and answers[-1].is_success

        try:
            wait_until(asked, f"{method} {path} is accepted", seconds=90, every=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {answers[-1].text if answers else 'no answer'}") from error
        return answers[-1]

    def _submit(self, marker: str) -> uuid.UUID:
        with self._lock:
            self._numbers += 1
            number = self._numbers
        body = {
            "prompt_name": PROMPT,
            "variables": {"tag": self.tag, "number": f"{number}{marker}"},
            "correlation_id": self.tag,
        }
        answer = self.call("POST", "/v1/executions:submit", body, **{"Idempotency-Key": f"{self.tag}-{number}"})
        execution_id = uuid.UUID(answer.json()["execution_id"])
        with self._lock:
            self.accepted.add(execution_id)
        return execution_id

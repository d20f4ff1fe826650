"""One provider call. The only place in the system that makes one."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from shared import messages, metrics
from shared.bulk_rows import bulk_update
from shared.config import settings
from shared.db import after_commit, among
from shared.domain import budgets, events
from shared.domain.budgets import Usage
from shared.domain.events import Change
from shared.domain.leases import Lease
from shared.domain.providers import CATALOGUED, Quote, usd
from shared.errors import ProviderError
from shared.models import Execution, Job, Queue, State
from worker.providers import Answer, Request, get_provider
from worker.steps import Canceled, Done, Failure, Verdict, storable

RETRY_LADDER_SECONDS = (5.0, 30.0, 120.0)
LONGEST_RETRY_AFTER_SECONDS = 3600.0  # some send a point in time; a run must not wait for the next century
MAX_RESPONSE_BYTES = 500_000
MAX_MESSAGE_CHARACTERS = 2_000

log = structlog.get_logger("executions")


_REQUESTS = sa.select(
    Execution.id,
    Execution.purpose,
    Execution.provider,
    Execution.model_name,
    Execution.messages,
    Execution.tools,
    Execution.response_schema,
    Execution.params,
    Execution.sample,
).where(among(Execution.id))
_ROWS = sa.select(
    Execution.id,
    Execution.ambiguous_attempts,
    Execution.estimate_tokens,
    Execution.estimate_nano,
    Execution.input_nano_per_mtok,
    Execution.output_nano_per_mtok,
    Execution.provider,
    Execution.model_name,
    Execution.request_id,
).where(among(Execution.id))


def load(session: Session, leases: Sequence[Lease]) -> Mapping[int, Any]:
    by_subject = {lease.subject_id: lease for lease in leases}
    rows = session.connection().execute(_REQUESTS, {"ids": list(by_subject)})
    return {
        by_subject[row.id].job_id: (
            row.provider,
            row.purpose == "embedding",
            Request(
                execution_id=str(row.id),
                model_name=row.model_name,
                messages=row.messages,
                tools=row.tools,
                response_schema=row.response_schema,
                params=row.params,
                sample=row.sample,
                attempt=by_subject[row.id].attempts,
                timeout_seconds=settings().provider_timeout_seconds,
            ),
        )
        for row in rows
    }


def run(lease: Lease, loaded: tuple[str, bool, Request]) -> Answer | Failure:
    provider, is_embedding, request = loaded
    try:
        adapter = get_provider(provider)
        answer = adapter.embed(request) if is_embedding else adapter.generate(request)
    except ProviderError as error:
        message = storable(error.detail, MAX_MESSAGE_CHARACTERS)
        return Failure(error.code, message, error.retryable, error.possibly_paid, error.retry_after_seconds)
    problem = _unstorable(answer.text)
    if problem:
        return Failure("malformed_response", problem, retryable=True, possibly_paid=True)
    # What a provider adds to an answer must not cost us the answer.
    return replace(
        answer,
        finish_reason=answer.finish_reason and storable(answer.finish_reason, 32),
        provider_request_id=answer.provider_request_id and storable(answer.provider_request_id, 128),
    )


def finish(session: Session, done: Sequence[Done]) -> Mapping[int, Verdict]:
    rows = _rows_of(session, done)
    books = _Books()
    verdicts: dict[int, Verdict] = {}
    for item in done:
        job, outcome, execution = item.job, item.outcome, rows[item.job.subject_id]
        # The sweep had given the job up and nobody has claimed it since: the late answer is saved.
        salvaged = job.state == State.QUEUED
        if isinstance(outcome, Answer):
            books.answered(job, execution, outcome, salvaged)
            verdicts[job.id] = Verdict(State.SUCCEEDED)
        elif isinstance(outcome, Canceled):
            if outcome.started:
                books.unknown(job, salvaged)
            else:
                books.settled.append(job)
            verdicts[job.id] = Verdict(State.CANCELED)
        else:
            books.failed(job, execution, outcome, salvaged)
            verdicts[job.id] = _verdict(job, outcome)
        books.lines.append(_line(job, execution, outcome, verdicts[job.id]))
    books.write(session)
    interactive = [str(item.job.subject_id) for item in done if item.job.queue == Queue.INTERACTIVE]
    after_commit(session, lambda: _count(books.lines))
    after_commit(session, lambda: _report(books.lines, interactive))
    return verdicts


def retry_delay(failures: int, retry_after_seconds: float | None) -> float:
    """Seconds before the next try: 5 s, 30 s, 2 min with full jitter, never before `Retry-After` (an hour at most).

    Full jitter: uniform in (0, base] (Brooker, "Exponential Backoff And Jitter", AWS 2015).
    """
    base = RETRY_LADDER_SECONDS[min(failures, len(RETRY_LADDER_SECONDS)) - 1]
    return max(base * (1 - random.random()), min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS))


def _verdict(job: Job, failure: Failure) -> Verdict:
    if failure.retryable and job.attempts + 1 < job.max_attempts:
        return Verdict(
            State.QUEUED,
            failure.code,
            failure.message,
            retry_in_seconds=retry_delay(job.attempts + 1, failure.retry_after_seconds),
        )
    return Verdict(State.FAILED, failure.code, failure.message)


def _rows_of(session: Session, done: Sequence[Done]) -> Mapping[Any, Any]:
    rows = session.connection().execute(_ROWS, {"ids": [item.job.subject_id for item in done]})
    return {row.id: row for row in rows}


class _Books:
    """What a group of finished calls changes: their rows, the budgets, the events, the log."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.changes: list[Change] = []
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.presumed: list[Job] = []
        self.settled: list[Job] = []
        self.used: dict[int, Usage] = {}

    def answered(self, job: Job, execution: Any, answer: Answer, salvaged: bool) -> None:
        update = _success(execution, answer, job, salvaged)
        self.updates.append(update)
        self.settled.append(job)
        self.used[job.id] = _usage(execution, answer, update["cost_nano"])
        self.changes.append(Change(job.workspace_id, "execution.succeeded", execution.id, {"salvaged": salvaged}))

    def unknown(self, job: Job, salvaged: bool) -> None:
        """Possibly paid. The sweep has booked that already for a job that it had put back."""
        if not salvaged:
            self.presumed.append(job)

    def failed(self, job: Job, execution: Any, failure: Failure, salvaged: bool) -> None:
        update = {"id": execution.id, "attempts": job.attempts + 1}
        if failure.possibly_paid:
            self.unknown(job, salvaged)
        else:
            self.settled.append(job)
            if salvaged:
                update["ambiguous_attempts"] = execution.ambiguous_attempts - 1
        self.updates.append(update)

    def write(self, session: Session) -> None:
        budgets.lock(session, [*self.presumed, *self.settled])
        # Charges first: they tell a salvaged job from a running one by the state that it still has.
        budgets.presume_paid(session, self.presumed)
        budgets.settle(session, self.used, self.settled)
        by_shape: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
        for update in self.updates:
            by_shape[frozenset(update)].append(update)
        for shape, rows in by_shape.items():  # those that get a state have ended now
            bulk_update(session, Execution, rows, stamped="completed_at" if "state" in shape else None)
        events.record(session, self.changes)


def _success(execution: Any, answer: Answer, job: Job, salvaged: bool) -> dict[str, Any]:
    known = answer.prompt_tokens is not None and answer.response_tokens is not None
    text, response_bytes = _capped(answer.text)
    truncated = response_bytes > MAX_RESPONSE_BYTES
    return {
        "id": execution.id,
        "attempts": job.attempts + 1,
        "state": State.SUCCEEDED,
        "response_text": text,
        "response_bytes": response_bytes,
        "truncated": truncated,
        "error_type": "truncated" if truncated else None,
        "error_message": None,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "response_tokens": answer.response_tokens,
        "cost_nano": _price(execution).cost_nano(answer.prompt_tokens or 0, answer.response_tokens or 0)
        if known
        else None,
        "latency_ms": answer.latency_ms,
        "provider_request_id": answer.provider_request_id,
        # The attempt that the sweep had counted as lost has come back after all.
        "ambiguous_attempts": execution.ambiguous_attempts - (1 if salvaged else 0),
    }


def _price(execution: Any) -> Quote:
    return Quote(
        execution.provider,
        execution.model_name,
        (),
        execution.input_nano_per_mtok,
        execution.output_nano_per_mtok,
    )


def _usage(execution: Any, answer: Answer, cost_nano: int | None) -> Usage:
    """What to charge; the bound itself where the provider reported nothing."""
    if answer.prompt_tokens is None or answer.response_tokens is None:
        return Usage(execution.estimate_tokens, execution.estimate_nano)
    return Usage(answer.prompt_tokens + answer.response_tokens, cost_nano or 0)


def _capped(text: str) -> tuple[str, int]:
    """The text that is kept, which ends with a whole character, and how many bytes there were."""
    encoded = text.encode()
    if len(encoded) <= MAX_RESPONSE_BYTES:
        return text, len(encoded)
    return encoded[:MAX_RESPONSE_BYTES].decode(errors="ignore"), len(encoded)


def _unstorable(text: str) -> str | None:
    if "\x00" in text:
        return "the answer holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "the answer is not valid Unicode"
    return None


def _line(job: Job, execution: Any, outcome: Any, verdict: Verdict) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] = {
        "execution_id": str(execution.id),
        "provider": execution.provider,
        "model_name": execution.model_name,
        "status": str(verdict.state),
        "attempts": job.attempts + 1,
        "request_id": execution.request_id,
    }
    if isinstance(outcome, Answer):
        known = outcome.prompt_tokens is not None and outcome.response_tokens is not None
        cost = _price(execution).cost_nano(outcome.prompt_tokens or 0, outcome.response_tokens or 0)
        fields |= {
            "latency_ms": outcome.latency_ms,
            "prompt_tokens": outcome.prompt_tokens,
            "response_tokens": outcome.response_tokens,
            "cost_usd": usd(cost) if known else None,
            "provider_request_id": outcome.provider_request_id,
        }
    elif isinstance(outcome, Failure):
        fields |= {"error_type": outcome.code, "error_message": outcome.message}
    return ("execution_retry" if verdict.state == State.QUEUED else "execution"), fields


def _count(lines: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Of the tries that ended in an answer or an error. Callers may name any model: only known ones get a label."""
    metrics.calls_ended(
        {
            **fields,
            "model_name": fields["model_name"]
            if (fields["provider"], fields["model_name"]) in CATALOGUED
            else metrics.OTHER_MODEL,
            "outcome": fields.get("error_type", "succeeded"),
        }
        for _, fields in lines
        if fields["status"] != State.CANCELED
    )


def _report(lines: Sequence[tuple[str, dict[str, Any]]], interactive: Sequence[str]) -> None:
    for event, fields in lines:
        log.info(event, **fields)
    messages.announce_ended(interactive)

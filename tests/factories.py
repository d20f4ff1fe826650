"""Rows for tests of the engine, made by the domain's own verbs; only what matters is named in a test."""

import uuid
from typing import Any

import sqlalchemy as sa

from shared import db
from shared.config import settings
from shared.domain import budgets, datasets, executions, leases, prompts, providers
from shared.domain.budgets import Limits
from shared.domain.content import check_content
from shared.domain.executions import NewExecution
from shared.domain.leases import Lease
from shared.domain.tenants import Caller
from shared.models import Barrier, Budget, Evaluation, Execution, Job, JobKind, JobLease, Queue, State, new_id
from worker import maintenance
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS

LEASE_SECONDS = 60.0


def submit(
    caller: Caller,
    count: int = 1,
    *,
    queue: Queue = Queue.EXECUTIONS,
    budget_id: uuid.UUID | None = None,
    **fields: Any,
) -> list[uuid.UUID]:
    """Submit so many different executions; their ids in order."""
    with db.transaction() as session:
        quote = providers.quote(session, "simulated", "simulated-small")
        new = [
            NewExecution(
                workspace_id=caller.workspace_id,
                model=quote,
                params={"max_new_tokens": 10},
                messages=[{"role": "user", "content": f"question {i}"}],
                budget_id=budget_id,
                **fields,
            )
            for i in range(count)
        ]
        return executions.submit_many(session, new, queue=queue)


def waiting_run(caller: Caller, calls: int, *, name: str = "run") -> uuid.UUID:
    """An evaluation row whose step 2 waits for so many calls."""
    run_id = new_id()
    with db.transaction() as session:
        content = check_content(template_source="x {{ a }}")
        upserted = prompts.upsert(session, caller, name, content)
        dataset = datasets.create_dataset(session, caller, name=name)
        session.add(
            Evaluation(
                id=run_id,
                workspace_id=caller.workspace_id,
                project_id=upserted.prompt.project_id,
                prompt_id=upserted.prompt.id,
                version_id=upserted.version.id,
                dataset_id=dataset.id,
                dataset_revision=0,
                scorers=[],
                model={},
                state=State.RUNNING,
                step_no=1,
            )
        )
        barrier = Barrier(
            workspace_id=caller.workspace_id,
            kind=JobKind.EVALUATION,
            subject_id=run_id,
            step_no=2,
            total=calls,
            remaining=calls,
        )
        session.add(barrier)
        session.flush()
        quote = providers.quote(session, "simulated", "simulated-small")
        new = [
            NewExecution(
                workspace_id=caller.workspace_id,
                model=quote,
                params={},
                messages=[{"role": "user", "content": f"q{i}"}],
                scope_id=run_id,
            )
            for i in range(calls)
        ]
        executions.submit_many(session, new, queue=Queue.EXECUTIONS, barrier_id=barrier.id)
    return run_id


def make_budget(caller: Caller, **limits: Any) -> uuid.UUID:
    with db.transaction() as session:
        return budgets.create(session, caller.workspace_id, uuid.uuid4(), Limits(**limits))


def claim(owner: str = "worker:1", *, limit: int = 10, queue: Queue = Queue.EXECUTIONS, **options: Any) -> list[Lease]:
    with db.transaction() as session:
        options = {"lease_seconds": LEASE_SECONDS, **options}
        return leases.claim(session, owner, queue=queue, limit=limit, **options).leases


def sweep() -> leases.Swept:
    with db.transaction() as session:
        return leases.sweep(session)


def do_duties() -> None:
    """All that the sweep does, as a worker does it."""
    db.offset_clock(db._clock_offset_seconds + settings().sweep_seconds)
    maintenance.sweep()


def expire_leases() -> None:
    """Let the database's clock pass the end of every lease."""
    db.offset_clock(db._clock_offset_seconds + LEASE_SECONDS + 1)


def job_of(execution_id: uuid.UUID) -> Job:
    with db.reading() as session:
        return session.scalars(sa.select(Job).where(Job.subject_id == execution_id).order_by(Job.id.desc())).first()  # type: ignore[return-value]


def execution(execution_id: uuid.UUID) -> Execution:
    with db.reading() as session:
        return session.get_one(Execution, execution_id)


def budget(budget_id: uuid.UUID) -> Budget:
    with db.reading() as session:
        return session.get_one(Budget, budget_id)


def lease_rows() -> list[JobLease]:
    with db.reading() as session:
        return list(session.scalars(sa.select(JobLease).order_by(JobLease.job_id)))


def fail(*execution_ids: uuid.UUID | str, code: str = "bad_request") -> list[int]:
    """Let these queued executions fail for good, as a worker records it; the ids of their jobs."""
    wanted = [job_of(uuid.UUID(str(execution_id))).id for execution_id in execution_ids]
    outcome = Failure(code, f"the provider said {code}", retryable=False)
    claimed = [lease for queue in Queue for lease in claim(queue=queue, limit=len(wanted), job_ids=wanted)]
    assert len(claimed) == len(wanted)
    record(STEPS, [(lease, outcome) for lease in claimed])
    return wanted

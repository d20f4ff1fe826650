"""Writing the outcomes of a group of jobs, in one transaction with what its slots do next."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy.orm import Session

from shared import metrics
from shared.db import after_commit, transaction
from shared.domain import jobs, leases
from shared.domain.leases import Lease
from shared.models import JobKind, Queue, State
from worker.steps import Canceled, Done, Step, Verdict

log = structlog.get_logger("worker")


def record(
    steps: Mapping[JobKind, Step],
    group: Sequence[tuple[Lease, Any]],
    *,
    beside: Callable[[Session], None] = lambda session: None,
    set_off: Callable[[Session, Mapping[Queue, Sequence[int]]], None] = lambda session, steps: None,
    committed: Callable[[], None] = lambda: None,
) -> None:
    """Write the outcomes whose fence is still the newest, in one transaction; drop the others.

    `beside` writes in that transaction too, and so does `set_off`, which is told the jobs of the steps that begin now.
    `committed` is called as soon as all of it is durable, before messages leave and lines are logged.
    """
    # By job: the newest lease, for this process may have lost the job and claimed it again; and of one lease
    # the answer that came rather than the cancel that came with it.
    newest: dict[int, tuple[Lease, Any]] = {}
    for lease, outcome in sorted(group, key=lambda item: (item[0].fence, not isinstance(item[1], Canceled))):
        newest[lease.job_id] = (lease, outcome)
    calls = all(lease.kind == JobKind.EXECUTION for lease, _ in newest.values())
    with transaction(pipelined=calls) as session:
        after_commit(session, committed)
        held = leases.hold(session, [lease for lease, _ in newest.values()])
        if len(held) < len(newest):
            log.warning("stale_outcomes_dropped", job_ids=sorted(set(newest) - set(held)))
        salvaged = sum(
            job.state == State.QUEUED and not isinstance(newest[job_id][1], Canceled) for job_id, job in held.items()
        )
        retried: Counter[str] = Counter()
        by_kind: dict[JobKind, list[Done]] = defaultdict(list)
        for job_id, job in held.items():
            by_kind[JobKind(job.kind)].append(Done(job, newest[job_id][1]))
        verdicts: dict[int, Verdict] = {}
        for kind, done in by_kind.items():
            verdicts.update(steps[kind].finish(session, done))
        if all(job.state == State.RUNNING for job in held.values()):  # one that was put back would be claimed again
            beside(session)  # before barriers are locked: others wait for them
        endings = []
        for job_id, job in held.items():
            verdict = verdicts[job_id]
            if verdict.retry_in_seconds is not None and job.cancel_requested:
                endings.append(jobs.Ending(job, State.CANCELED, tried=True))
            elif verdict.retry_in_seconds is not None:
                retried[job.kind] += 1
                job.attempts += 1
                job.fence += 1  # this outcome is written: its lease has no second one to write
                jobs.requeue(session, [job], delay_seconds=verdict.retry_in_seconds, error=verdict.error)
            else:
                endings.append(
                    jobs.Ending(job, verdict.state, verdict.error, verdict.message, tried=True, unmade=verdict.unmade)
                )
        set_off(session, jobs.close(session, endings))
    metrics.outcomes_recorded(dropped=len(newest) - len(held), salvaged=salvaged, retried=retried)

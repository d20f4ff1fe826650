"""/v1/jobs: what waits, what runs and what died; dead ones are requeued."""

from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import Moment, PageQuery, WholeNumber, blueprint, page_of, render_page
from app.api.content import Length
from app.auth import caller
from shared.db import reading
from shared.domain import dead_jobs, jobs
from shared.domain.dead_jobs import Filter, Requeued
from shared.models import Job, JobKind, JobLease, Queue, Role, State

blp = blueprint("jobs", "One job is one unit of work for the fleet; it works for an execution or a run.")


class JobSummary(ma.Schema):
    job_id = ma.fields.Integer(attribute="id")
    kind = ma.fields.String()
    queue = ma.fields.String()
    state = ma.fields.String()
    subject_id = ma.fields.UUID(metadata={"description": "The execution, evaluation, optimization or bulk operation"})
    subject_url = ma.fields.Function(jobs.subject_url)
    step_no = ma.fields.Integer(allow_none=True, metadata={"description": "Which step of a run"})
    priority = ma.fields.Integer(metadata={"description": "0 is claimed first, 9 last"})
    attempts = ma.fields.Integer(metadata={"description": "Tries that ended, by answer or by error"})
    losses = ma.fields.Integer(metadata={"description": "Leases that ran out: its worker was lost"})
    deferrals = ma.fields.Integer(metadata={"description": "Sent back without a try"})
    max_attempts = ma.fields.Integer()
    error = ma.fields.String(allow_none=True)
    blocked_by = ma.fields.UUID(allow_none=True, metadata={"description": "The budget that cannot afford it now"})
    cancel_requested = ma.fields.Boolean()
    retry_of = ma.fields.Integer(allow_none=True, metadata={"description": "The dead job that was requeued as this"})
    run_at = ma.fields.DateTime()
    deadline_at = ma.fields.DateTime(allow_none=True)
    created_at = ma.fields.DateTime()
    finished_at = ma.fields.DateTime(allow_none=True)


class LeaseOut(ma.Schema):
    owner = ma.fields.String()
    acquired_at = ma.fields.DateTime()
    heartbeat_at = ma.fields.DateTime()
    expires_at = ma.fields.DateTime()


class JobOut(JobSummary):
    error_message = ma.fields.String(allow_none=True, metadata={"description": "What the subject says of its end"})
    requeued_as = ma.fields.Integer(
        allow_none=True, metadata={"description": "The job that took this dead one's place"}
    )
    lease = ma.fields.Nested(LeaseOut, allow_none=True, metadata={"description": "While it runs"})


class JobsQuery(PageQuery):
    state = ma.fields.String(load_default=None, validate=ma.validate.OneOf([state.value for state in State]))
    queue = ma.fields.String(load_default=None, validate=ma.validate.OneOf([queue.value for queue in Queue]))
    kind = ma.fields.String(load_default=None, validate=ma.validate.OneOf([kind.value for kind in JobKind]))
    error = ma.fields.String(load_default=None, validate=Length(1, 64))


class RequeueIn(ma.Schema):
    queue = ma.fields.String(validate=ma.validate.OneOf([queue.value for queue in Queue]))
    error = ma.fields.String(validate=Length(1, 64))
    kind = ma.fields.String(validate=ma.validate.OneOf([kind.value for kind in JobKind]))
    failed_before = Moment(metadata={"description": "With its offset from UTC"})
    limit = WholeNumber(load_default=1_000, validate=ma.validate.Range(1, 1_000))


class RequeuedOut(ma.Schema):
    job_id = ma.fields.Integer(metadata={"description": "The dead job; it stays as it is"})
    requeued_as = ma.fields.Integer(metadata={"description": "The job that takes its place"})
    execution_id = ma.fields.UUID(metadata={"description": "The new execution"})


class RefusedOut(ma.Schema):
    job_id = ma.fields.Integer()
    reason = ma.fields.String()


class BulkOut(ma.Schema):
    requeued = ma.fields.Integer(metadata={"description": "How many; repeat the request until it is 0"})
    data = ma.fields.List(ma.fields.Nested(RequeuedOut))
    refused = ma.fields.List(
        ma.fields.Nested(RefusedOut), metadata={"description": "The oldest hundred that match and cannot be requeued"}
    )


@blp.get("/jobs")
@blp.arguments(JobsQuery, location="query")
@blp.response(200, page_of(JobSummary))
def list_jobs(query: dict[str, Any]) -> flask.Response:
    """List jobs, newest first; `state=failed` are the dead ones"""
    with reading() as session:
        return flask.jsonify(render_page(JobSummary(), jobs.list_jobs(session, caller(), **query)))


@blp.get("/jobs/<int:job_id>")
@blp.response(200, JobOut)
def get_job(job_id: int) -> flask.Response:
    """Read a job: its counters, its error, who works on it, and what became of it"""
    with reading() as session:
        job = jobs.get_job(session, caller(), job_id)
        return flask.jsonify(_job(session, job))


@blp.post("/jobs/<int:job_id>/requeue")
@blp.doc(parameters=[replay.PARAMETER])
@blp.response(202, RequeuedOut)
def requeue_job(job_id: int) -> flask.Response:
    """Do the work of a dead job again, as a new execution; poll the Location"""
    author = caller(Role.EDITOR)

    def make(session: Session, _: Any) -> Any:
        done = dead_jobs.requeue(session, author, job_id, request_id=flask.g.request_id)
        return RequeuedOut().dump(done)

    answer = replay.create(author, {}, 202, make)
    answer.headers["Location"] = f"/v1/executions/{answer.get_json()['execution_id']}"
    return answer


@blp.post("/jobs/requeue")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(RequeueIn)
@blp.response(200, BulkOut)
def requeue_jobs(body: dict[str, Any]) -> flask.Response:
    """Requeue the dead executions that match, oldest first; repeat it until none is left

    Dead steps and calls of evaluations and optimizations are refused, each with its reason: their run has ended
    or gone on without them.
    """
    author = caller(Role.EDITOR)
    fields = dict(body)
    limit = fields.pop("limit")

    def make(session: Session, _: Any) -> Any:
        done: list[Requeued]
        done, refused = dead_jobs.requeue_many(
            session, author, Filter(**fields), limit=limit, request_id=flask.g.request_id
        )
        return BulkOut().dump({"requeued": len(done), "data": done, "refused": refused})

    return replay.create(author, flask.g.body, 200, make)


def _job(session: Session, job: Job) -> Any:
    subject = session.get(jobs.SUBJECTS[JobKind(job.kind)], job.subject_id)
    return {
        **JobSummary().dump(job),
        "error_message": subject and subject.error_message,
        "requeued_as": jobs.requeued_as(session, job),
        "lease": (lease := session.get(JobLease, job.id)) and LeaseOut().dump(lease),
    }

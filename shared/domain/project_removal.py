"""The permanent end of a project: every row that belongs to it, whichever noun made the table.

A row belongs to the project that its `project_id` names; without one, to what its foreign keys need (those that are
not null); jobs, barriers, budgets and work items to the run that they are for. What merely points at such a row from
elsewhere, such as the lineage of a fork, stays and points nowhere. Events stay: they tell what became of it.
"""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import events, projects
from shared.domain.preconditions import ANY, Precondition
from shared.domain.tenants import Caller
from shared.errors import Conflict, NotFound
from shared.models import (
    Barrier,
    Base,
    Batch,
    Budget,
    Evaluation,
    Execution,
    Generation,
    Job,
    Optimization,
    Project,
    Role,
    State,
    WorkItem,
)

RUNS = (Execution, Evaluation, Optimization, Generation)
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELED)
OF_A_RUN = (WorkItem.scope_id, Job.subject_id, Barrier.subject_id)


def remove_project(
    session: Session, caller: Caller, name_or_id: str, *, precondition: Precondition = ANY
) -> dict[str, int]:
    """Delete a project, deleted before or not, with all that is in it; how many rows of each table.

    409 while a run in it has not ended. Takes an administrator.
    """
    caller.require(Role.ADMIN)
    project = projects.find_project(session, caller, name_or_id) or projects.find_deleted(session, caller, name_or_id)
    if project is None:
        raise NotFound(f"no project {name_or_id!r}")
    projects.check_deletable(project)
    # FOR UPDATE: who inserts something into it meanwhile waits, and is then told that it is gone.
    session.refresh(project, with_for_update=True)
    precondition.check(projects.etag_of(project), f"project {project.name}")
    _refuse_open_work(session, project)
    name, project_id = project.name, project.id
    session.expunge(project)
    counts = _delete_all(session, project_id)
    data = {"name": name, "permanent": True, "rows": counts}
    events.record(session, [events.Change(caller.workspace_id, "project.deleted", project_id, data, caller.user_name)])
    return counts


def _refuse_open_work(session: Session, project: Project) -> None:
    found = {
        f"{run.__tablename__}": session.scalar(
            sa.select(sa.func.count()).where(run.project_id == project.id, run.state.not_in(ENDED))
        )
        for run in RUNS
    }
    is_open = ", ".join(f"{count} {noun}" for noun, count in found.items() if count)
    if is_open:
        raise Conflict(f"not everything in project {project.name} has ended ({is_open}); cancel it or wait")


def _delete_all(session: Session, project_id: uuid.UUID) -> dict[str, int]:
    """Children before what they refer to; how many of each, those that there were."""
    runs = sa.union_all(*(sa.select(run.id).where(run.project_id == project_id) for run in (*RUNS, Batch)))
    owned: dict[Any, sa.ColumnElement[bool]] = {
        column.class_.__table__: column.in_(runs.scalar_subquery()) for column in OF_A_RUN
    }
    counts = {table.name: _delete(session, table, condition) for table, condition in owned.items()}
    # They are referred to by the runs, and found through them: so they go after, by ids that are found before.
    budgets = session.scalars(sa.select(Budget.id).where(Budget.subject_id.in_(runs.scalar_subquery()))).all()
    owned = _owned(project_id)
    for table in reversed(Base.metadata.sorted_tables):
        if table in owned:
            _let_go(session, table, owned[table])
            counts[table.name] = _delete(session, table, owned[table])
    for start in range(0, len(budgets), 500):
        counts["budgets"] = counts.get("budgets", 0) + _delete(
            session, Budget.__table__, Budget.id.in_(budgets[start : start + 500])
        )
    return {name: count for name, count in sorted(counts.items()) if count}


def _owned(project_id: uuid.UUID) -> dict[Any, sa.ColumnElement[bool]]:
    """By table, which rows belong to the project."""
    owned: dict[Any, sa.ColumnElement[bool]] = {Project.__table__: Project.id == project_id}
    for table in Base.metadata.sorted_tables:  # each after those that it refers to
        if table in owned:
            continue
        if "project_id" in table.c:
            owned[table] = table.c.project_id == project_id
            continue
        needs = [
            key.parent.in_(sa.select(key.column).where(owned[key.column.table]))
            for key in table.foreign_keys
            if key.column.table in owned and not key.parent.nullable
        ]
        if needs:
            owned[table] = sa.or_(*needs)
    return owned


def _let_go(session: Session, table: Any, condition: sa.ColumnElement[bool]) -> None:
    """What is left that points at these rows, and can do without, points nowhere."""
    for other in Base.metadata.sorted_tables:
        for key in other.foreign_keys:
            if key.column.table is table and key.parent.nullable:
                gone = sa.select(key.column).where(condition)
                session.execute(sa.update(other).where(key.parent.in_(gone)).values({key.parent: None}))


def _delete(session: Session, table: Any, condition: sa.ColumnElement[bool]) -> int:
    return int(session.execute(sa.delete(table).where(condition)).rowcount)  # type: ignore[attr-defined]

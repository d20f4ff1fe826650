"""Datasets: their rows and their revisions. What changes the cases makes a revision; an old one is never changed."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, insert_if_absent
from shared.domain import events, pages, projects
from shared.domain.events import Change
from shared.domain.names import check_name, is_name
from shared.domain.pages import Page
from shared.domain.tenants import Caller, get_visible
from shared.errors import AlreadyExists, Conflict, NotFound, Unprocessable, field_error
from shared.models import Batch, Dataset, DatasetRevision, Evaluation, Generation, Optimization, Role, TestCase, new_id

MAX_CASES = 100_000


def create_dataset(
    session: Session, caller: Caller, *, name: str, description: str = "", project: str | None = None
) -> Dataset:
    home = projects.get_project(session, caller, project, writing=True)
    dataset_id = new_id()
    if not insert_if_absent(
        session,
        Dataset,
        id=dataset_id,
        workspace_id=caller.workspace_id,
        project_id=home.id,
        name=check_name(name),
        description=description,
        created_by=caller.user_name,
    ):
        raise AlreadyExists(f"a dataset named {name} exists in project {home.name}")
    dataset = session.get_one(Dataset, dataset_id)
    _record(session, caller, dataset, "created", {"name": name})
    return dataset


def get_dataset(
    session: Session, caller: Caller, name: str, *, project: str | None = None, writing: bool = False
) -> Dataset:
    """`writing`: it is to be changed, which is a 409 in an archived project."""
    home = projects.get_project(session, caller, project, writing=writing)
    query = live().where(Dataset.project_id == home.id, Dataset.name == name)
    dataset = session.scalars(query).one_or_none() if is_name(name) else None
    if dataset is None:
        raise NotFound(f"no dataset {name!r} in project {home.name}", fields=["dataset"])
    return dataset


def lock_dataset(session: Session, caller: Caller, name: str, *, project: str | None = None) -> Dataset:
    """The same; nobody else changes it or its cases until the transaction ends."""
    return lock(session, get_dataset(session, caller, name, project=project, writing=True))


def lock(session: Session, dataset: Dataset) -> Dataset:
    locked = session.get(Dataset, dataset.id, with_for_update=True, populate_existing=True)
    if locked is None or locked.deleted_at is not None:  # since the statement before
        raise NotFound(f"no dataset {dataset.name!r}", fields=["dataset"])
    return locked


def list_datasets(
    session: Session,
    caller: Caller,
    *,
    project: str | None,
    include_deleted: bool = False,
    limit: int,
    cursor: str | None,
) -> Page:
    query = projects.living_in(session, caller, Dataset, project)
    if not include_deleted:
        query = query.where(Dataset.deleted_at.is_(None))
    return pages.newest_first(session, query, Dataset, limit=limit, cursor=cursor)


def update_dataset(
    session: Session, caller: Caller, dataset: Dataset, *, name: str | None = None, description: str | None = None
) -> None:
    """Rename or describe a locked dataset. Its cases, revisions and evaluations come along."""
    changed: dict[str, Any] = {}
    if name is not None and name != dataset.name:
        _require_free(session, dataset, check_name(name))
        changed["name"] = name
    if description is not None and description != dataset.description:
        changed["description"] = description
    if changed:
        _change(session, dataset, **changed)
        _record(session, caller, dataset, "updated", changed)


def delete_dataset(session: Session, caller: Caller, dataset: Dataset) -> None:
    """Free the name of a locked dataset. What was evaluated on it can still be read, and what runs goes on."""
    _change(session, dataset, deleted_at=db_now(), deleted_by=caller.user_name)
    _record(session, caller, dataset, "deleted", {"name": dataset.name, "permanent": False})


def destroy_dataset(session: Session, caller: Caller, dataset_id: uuid.UUID) -> Dataset:
    """Delete a dataset with its cases for good, deleted before or not; `Conflict` while anything was run on it."""
    caller.require(Role.ADMIN)
    dataset = _lock_any(session, caller, dataset_id)
    projects.get_project(session, caller, str(dataset.project_id), writing=True)
    counts = {
        entity.__tablename__: session.scalar(
            sa.select(sa.func.count()).select_from(entity).where(entity.dataset_id == dataset.id)
        )
        for entity in (Evaluation, Optimization, Batch, Generation)
    }
    held = ", ".join(f"{count} {noun}" for noun, count in counts.items() if count)
    if held:
        raise Conflict(
            f"{held} refer to {dataset.name}, and would no longer say what they ran on;"
            " delete it without `permanent`, which frees its name and keeps its cases"
        )
    _record(session, caller, dataset, "deleted", {"name": dataset.name, "permanent": True})
    session.expunge(dataset)
    for rows in (TestCase.dataset_id, DatasetRevision.dataset_id, Dataset.id):
        session.execute(sa.delete(rows.class_).where(rows == dataset.id).execution_options(synchronize_session=False))
    return dataset


def restore_dataset(session: Session, caller: Caller, dataset_id: uuid.UUID, *, name: str | None = None) -> Dataset:
    """Bring a deleted dataset back, under another name if one is given. One that is not deleted stays as it is."""
    dataset = _lock_any(session, caller, dataset_id)
    projects.get_project(session, caller, str(dataset.project_id), writing=True)
    wanted = dataset.name if name is None else check_name(name)
    if dataset.deleted_at is None:
        if wanted != dataset.name:
            raise Conflict(f"{dataset.name} is not deleted; rename it with PATCH /v1/datasets/{dataset.name}")
        return dataset
    _require_free(session, dataset, wanted, hint='; restore it under another: {"name": …}')
    deleted_as = dataset.name
    _change(session, dataset, name=wanted, deleted_at=None, deleted_by=None)
    _record(session, caller, dataset, "restored", {"name": wanted, "deleted_as": deleted_as})
    return dataset


def list_revisions(session: Session, dataset: Dataset, *, limit: int, cursor: str | None) -> Page:
    """Newest first."""
    query = sa.select(DatasetRevision).where(DatasetRevision.dataset_id == dataset.id)
    return pages.descending(session, query, DatasetRevision.number, limit=limit, cursor=cursor)


def add_revision(
    session: Session,
    dataset: Dataset,
    action: str,
    *,
    added: int = 0,
    removed: int = 0,
    author: str,
    data: Mapping[str, Any] | None = None,
) -> int:
    """The number of the next revision of a locked dataset. What it adds and removes is written by the caller."""
    if added and dataset.case_count + added - removed > MAX_CASES:
        raise Unprocessable(f"a dataset holds at most {MAX_CASES:,} cases")
    dataset.revision += 1
    dataset.case_count += added - removed
    dataset.updated_at = db_now()
    session.add(
        DatasetRevision(
            dataset_id=dataset.id,
            number=dataset.revision,
            workspace_id=dataset.workspace_id,
            action=action,
            added=added,
            removed=removed,
            case_count=dataset.case_count,
            created_by=author,
        )
    )
    session.flush()
    session.refresh(dataset)
    said = {"revision": dataset.revision, **(data or {})}
    events.record(session, [Change(dataset.workspace_id, f"dataset.{action}", dataset.id, said, author)])
    return dataset.revision


def check_revision(dataset: Dataset, revision: int | None, pointer: str = "?revision") -> int:
    """The revision asked for, or the newest."""
    if revision is None:
        return dataset.revision
    if not 0 <= revision <= dataset.revision:
        raise field_error(pointer, f"{dataset.name} has the revisions 0 to {dataset.revision}")
    return revision


class RunCase(NamedTuple):
    """What a run reads of a case. To make thousands of cases objects of the session takes three times as long."""

    id: uuid.UUID
    case_id: uuid.UUID
    ordinal: int
    inputs: Mapping[str, Any]
    expected: Any
    tags: Sequence[str]
    group: str | None
    weight: float
    generated: bool


def cases_of(session: Session, dataset_id: uuid.UUID, revision: int) -> Sequence[RunCase]:
    """Every case of a revision, in order."""
    columns = [getattr(TestCase, name) for name in RunCase._fields]
    query = sa.select(*columns).where(*in_revision(dataset_id, revision)).order_by(TestCase.ordinal)
    return [RunCase._make(row) for row in session.connection().execute(query)]


def rows_of(session: Session, dataset_id: uuid.UUID, revision: int) -> Sequence[TestCase]:
    """The same with all that there is of them."""
    query = sa.select(TestCase).where(*in_revision(dataset_id, revision)).order_by(TestCase.ordinal)
    return session.scalars(query).all()


def in_revision(dataset_id: uuid.UUID, revision: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        TestCase.dataset_id == dataset_id,
        TestCase.added_in <= revision,
        sa.or_(TestCase.removed_in.is_(None), TestCase.removed_in > revision),
    )


def live() -> sa.Select[Any]:
    return sa.select(Dataset).where(Dataset.deleted_at.is_(None))


def _lock_any(session: Session, caller: Caller, dataset_id: uuid.UUID) -> Dataset:
    """By its id, deleted or not."""
    found = get_visible(session, caller, Dataset, dataset_id)
    locked = session.get(Dataset, found.id, with_for_update=True, populate_existing=True)
    if locked is None:
        raise NotFound(f"no dataset {dataset_id}")
    return locked


def _require_free(session: Session, dataset: Dataset, name: str, *, hint: str = "") -> None:
    # Who takes the name between this and the commit violates the index: the same 409, without the hint.
    taken = live().where(Dataset.project_id == dataset.project_id, Dataset.name == name, Dataset.id != dataset.id)
    if session.scalars(taken).first() is not None:
        raise AlreadyExists(f"a dataset named {name} exists in the project{hint}")


def _change(session: Session, dataset: Dataset, **values: Any) -> None:
    for field, value in values.items():
        setattr(dataset, field, value)
    dataset.updated_at = db_now()
    session.flush()
    session.refresh(dataset)


def _record(session: Session, caller: Caller, dataset: Dataset, happened: str, data: Mapping[str, Any]) -> None:
    change = Change(caller.workspace_id, f"dataset.{happened}", dataset.id, data, caller.user_name)
    events.record(session, [change])

"""Test cases: found, imported, changed, removed and restored. Each of these but the first makes one new revision."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bulk_rows import bulk_insert
from shared.db import holds_item, reading
from shared.domain import datasets, pages
from shared.domain.case_files import NewCase, case_of, problem_of, row_of
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import Conflict, NotFound, field_error
from shared.hashing import dump_json
from shared.models import Batch, Dataset, DatasetRevision, Evaluation, Optimization, Role, TestCase, new_id

PAGE = 500  # cases read, or inserted, at a time


@dataclass(frozen=True)
class Filter:
    """Which cases: what is None is not asked for. `q` is a part of the name, description, inputs or expected."""

    tag: str | None = None
    any_tag: Sequence[str] = ()
    golden: bool | None = None
    generated: bool | None = None
    group: str | None = None
    q: str | None = None
    revision: int | None = None


EVERY = Filter()


@dataclass(frozen=True)
class Imported:
    dataset: Dataset
    added: int
    duplicates: Sequence[int]  # lines whose content the dataset, or the file, had already


def list_cases(session: Session, dataset: Dataset, wanted: Filter = EVERY, *, limit: int, cursor: str | None) -> Page:
    """Of the newest revision, or the one asked for, in the order of import."""
    return pages.ascending(session, matching(session, dataset, wanted), TestCase.ordinal, limit=limit, cursor=cursor)


def matching(session: Session, dataset: Dataset, wanted: Filter) -> sa.Select[Any]:
    revision = datasets.check_revision(dataset, wanted.revision)
    query = sa.select(TestCase).where(*datasets.in_revision(dataset.id, revision))
    for name in ("golden", "generated", "group"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(getattr(TestCase, name) == value)
    if wanted.tag is not None:
        query = query.where(holds_item(session, TestCase.tags, wanted.tag))
    if wanted.any_tag:
        query = query.where(sa.or_(*(holds_item(session, TestCase.tags, tag) for tag in wanted.any_tag)))
    if wanted.q is not None:
        query = query.where(_holds_text(wanted.q.lower()))
    return query


def _holds_text(part: str) -> sa.ColumnElement[bool]:
    texts: list[tuple[Any, str]] = [(TestCase.name, part), (TestCase.description, part)]
    as_stored = dump_json(part)[1:-1]  # a quote or a new line is written differently inside JSON
    texts += [(sa.cast(column, sa.Text), as_stored) for column in (TestCase.inputs, TestCase.expected)]
    return sa.or_(*(sa.func.lower(text).contains(wanted, autoescape=True) for text, wanted in texts))


def each_case(dataset: Dataset, wanted: Filter) -> Iterator[TestCase]:
    """Every case that is asked for, in order, some hundreds in memory at a time, each page in its own transaction.

    The revision is fixed at the start, so that what is changed meanwhile is not seen.
    """
    cursor = None
    while True:
        with reading() as session:
            page = list_cases(session, dataset, wanted, limit=PAGE, cursor=cursor)
        yield from page.data
        cursor = page.next_cursor
        if cursor is None:
            return


def get_case(session: Session, dataset: Dataset, case_id: uuid.UUID, *, revision: int | None = None) -> TestCase:
    """The case as it is in the newest revision, or as it was in an older one."""
    number = datasets.check_revision(dataset, revision)
    query = sa.select(TestCase).where(*datasets.in_revision(dataset.id, number), TestCase.case_id == case_id)
    case = session.scalars(query).one_or_none()
    if case is None:
        raise NotFound(f"no test case {case_id} in revision {number} of {dataset.name}")
    return case


def find_new(
    session: Session, dataset: Dataset, rows: Sequence[NewCase]
) -> tuple[Sequence[NewCase], Sequence[NewCase]]:
    """(the rows whose content is new, those that the dataset or an earlier row has already). Reads only."""
    live = sa.select(TestCase.content_hash).where(TestCase.dataset_id == dataset.id, TestCase.removed_in.is_(None))
    if len(rows) <= PAGE:
        live = live.where(TestCase.content_hash.in_([row.content_hash for row in rows]))
    known = set(session.scalars(live))
    fresh: list[NewCase] = []
    duplicates: list[NewCase] = []
    for row in rows:
        (duplicates if row.content_hash in known else fresh).append(row)
        known.add(row.content_hash)
    return fresh, duplicates


def import_cases(
    session: Session, author: str, dataset: Dataset, rows: Sequence[NewCase], *, action: str = "imported"
) -> Imported:
    """Add the rows that are new as one new revision; content that is there already is skipped.

    When nothing is new, there is no new revision.
    """
    dataset = datasets.lock(session, dataset)
    fresh, known = find_new(session, dataset, rows)
    duplicates = [row.line for row in known]
    if not fresh:
        return Imported(dataset, 0, duplicates)
    last = _last_ordinal(session, dataset)
    said = {"added": len(fresh), "duplicates": len(duplicates)}
    datasets.add_revision(session, dataset, action, added=len(fresh), author=author, data=said)
    for start in range(0, len(fresh), PAGE * 10):
        page = fresh[start : start + PAGE * 10]
        ordinals = range(last + 1 + start, last + 1 + start + len(page))
        bulk_insert(session, TestCase, [_row(dataset, *item) for item in zip(ordinals, page, strict=True)])
    return Imported(dataset, len(fresh), duplicates)


def added_in(session: Session, dataset: Dataset) -> Sequence[TestCase]:
    """The cases that the newest revision added, in order."""
    return made_in(session, dataset.id, dataset.revision)


def made_in(session: Session, dataset_id: uuid.UUID, revision: int) -> Sequence[TestCase]:
    """The same for any revision, as it made them."""
    query = sa.select(TestCase).where(TestCase.dataset_id == dataset_id, TestCase.added_in == revision)
    return session.scalars(query.order_by(TestCase.ordinal)).all()


def find_same(session: Session, dataset: Dataset, case: NewCase) -> uuid.UUID | None:
    """The case of the dataset that has this content."""
    query = sa.select(TestCase.case_id).where(
        TestCase.dataset_id == dataset.id, TestCase.removed_in.is_(None), TestCase.content_hash == case.content_hash
    )
    return session.scalar(query)


def change_case(session: Session, caller: Caller, dataset: Dataset, case: TestCase, fields: Mapping[str, Any]) -> None:
    """Give a case of a locked dataset other fields in a new revision; older ones keep it as it was.

    It stays the same case, at its place. What is so already is no change. `Conflict` when another has that content.
    """
    row = row_of(case)
    if all(row[name] == value for name, value in fields.items()):
        return
    row |= fields
    if problem := problem_of(row):
        raise field_error("", problem)
    changed = case_of(row)
    _require_new(session, dataset, changed.content_hash, besides=case.case_id)
    said = {"case_id": str(case.case_id), "fields": sorted(fields)}
    number = datasets.add_revision(session, dataset, "changed", added=1, removed=1, author=caller.user_name, data=said)
    case.removed_in = number
    _add_again(session, dataset, case, changed)


def remove_case(session: Session, caller: Caller, dataset: Dataset, case: TestCase) -> None:
    """Take a case out of a locked dataset in a new revision."""
    said = {"case_id": str(case.case_id)}
    number = datasets.add_revision(session, dataset, "removed", removed=1, author=caller.user_name, data=said)
    case.removed_in = number
    session.flush()


def restore_case(session: Session, caller: Caller, dataset: Dataset, case_id: uuid.UUID) -> None:
    """Put a removed case back to its place, as it was last, in a new revision. One that is there stays as it is."""
    query = sa.select(TestCase).where(TestCase.dataset_id == dataset.id, TestCase.case_id == case_id)
    last = session.scalars(query.order_by(TestCase.added_in.desc()).limit(1)).one_or_none()
    if last is None:
        raise NotFound(f"no test case {case_id} was ever in {dataset.name}")
    if last.removed_in is None:
        return
    _require_new(session, dataset, last.content_hash, besides=case_id)
    said = {"case_id": str(case_id)}
    datasets.add_revision(session, dataset, "restored", added=1, author=caller.user_name, data=said)
    _add_again(session, dataset, last, case_of(row_of(last)))


def replace_cases(session: Session, caller: Caller, dataset: Dataset, cases: Sequence[TestCase]) -> None:
    """One revision of a locked dataset that holds copies of these cases of another, and none that it had before.

    A copy keeps the `case_id`.
    """
    number = datasets.add_revision(
        session, dataset, "selected", added=len(cases), removed=dataset.case_count, author=caller.user_name
    )
    live = (TestCase.dataset_id == dataset.id, TestCase.removed_in.is_(None))
    session.execute(sa.update(TestCase).where(*live).values(removed_in=number))
    first = _last_ordinal(session, dataset) + 1  # one that was removed may come back to its place
    kept = ("case_id", "source_execution_id")
    rows = [
        _row(dataset, ordinal, case_of(row_of(case))) | {name: getattr(case, name) for name in kept}
        for ordinal, case in enumerate(cases, start=first)
    ]
    bulk_insert(session, TestCase, rows)


def destroy_case(session: Session, caller: Caller, dataset: Dataset, case_id: uuid.UUID) -> None:
    """Take a case out of a locked dataset with all that it ever was; `Conflict` when anything was run on it.

    Older revisions, which nobody has run, no longer have it, and count one case less. What each of them added and
    removed stays as it was done.
    """
    caller.require(Role.ADMIN)
    every = (TestCase.dataset_id == dataset.id, TestCase.case_id == case_id)
    rows = session.scalars(sa.select(TestCase).where(*every)).all()
    if not rows:
        raise NotFound(f"no test case {case_id} was ever in {dataset.name}")
    if any(_was_run(session, dataset, row) for row in rows):
        raise Conflict("it was run, and what was run would no longer say on what; delete it without `permanent`")
    if any(row.removed_in is None for row in rows):
        said = {"case_id": str(case_id), "permanent": True}
        datasets.add_revision(session, dataset, "removed", removed=1, author=caller.user_name, data=said)
    for row in rows:
        end = dataset.revision if row.removed_in is None else row.removed_in
        had = (DatasetRevision.number >= row.added_in, DatasetRevision.number < end)
        session.execute(
            sa.update(DatasetRevision)
            .where(DatasetRevision.dataset_id == dataset.id, *had)
            .values(case_count=DatasetRevision.case_count - 1)
        )
    session.execute(sa.delete(TestCase).where(*every))


def _was_run(session: Session, dataset: Dataset, row: TestCase) -> bool:
    """Whether a run is pinned to a revision that has this row."""
    end = dataset.revision + 1 if row.removed_in is None else row.removed_in
    return any(
        session.scalar(
            sa.select(
                sa.exists().where(
                    run.dataset_id == dataset.id, run.dataset_revision >= row.added_in, run.dataset_revision < end
                )
            )
        )
        for run in (Evaluation, Optimization, Batch)
    )


def etag_of(case: TestCase) -> str:
    """Another one for each change: the row is made anew."""
    return case.id.hex


def _require_new(session: Session, dataset: Dataset, content_hash: str, *, besides: uuid.UUID) -> None:
    query = sa.select(TestCase.case_id).where(
        TestCase.dataset_id == dataset.id, TestCase.removed_in.is_(None), TestCase.content_hash == content_hash
    )
    other = session.scalar(query.where(TestCase.case_id != besides))
    if other is not None:
        raise Conflict(f"test case {other} has these inputs and this expected value already")


def _add_again(session: Session, dataset: Dataset, before: TestCase, case: NewCase) -> None:
    session.flush()  # first the old row is out of the revision: both may have the same content
    row = _row(dataset, before.ordinal, case)
    kept = ("case_id", "created_at", "source_execution_id")
    session.add(TestCase(**row | {name: getattr(before, name) for name in kept}))
    session.flush()


def _last_ordinal(session: Session, dataset: Dataset) -> int:
    """Of every case that the dataset ever had."""
    return session.scalar(sa.select(sa.func.max(TestCase.ordinal)).where(TestCase.dataset_id == dataset.id)) or 0


def _row(dataset: Dataset, ordinal: int, case: NewCase) -> dict[str, Any]:
    case_id = new_id()
    return {
        "id": case_id,
        "case_id": case_id,
        "workspace_id": dataset.workspace_id,
        "dataset_id": dataset.id,
        "ordinal": ordinal,
        "content_hash": case.content_hash,
        "name": case.name,
        "description": case.description,
        "inputs": dict(case.inputs),
        "expected": case.expected,
        "tags": list(case.tags),
        "group": case.group,
        "weight": case.weight,
        "golden": case.golden,
        "generated": case.generated,
        "source_execution_id": case.source_execution_id,
        "added_in": dataset.revision,
    }

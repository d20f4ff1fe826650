"""Test cases named one by one, as the dataset that a run can be pinned to: all of its cases, or an error that says why.

For clients who know no datasets.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import datasets, projects, test_cases
from shared.domain.case_files import row_of
from shared.domain.tenants import Caller
from shared.errors import AlreadyExists, FieldError, NotFound, Unprocessable, field_error
from shared.models import Dataset, TestCase

POINTER = "/test_case_ids"
STUDIO_DATASET = "test-cases"  # of a project: the test cases of a client who knows no datasets
SELECTED = "test-cases.selected"  # each revision is what one run of some of these cases was pinned to


@dataclass(frozen=True)
class Chosen:
    dataset: Dataset
    cases: Sequence[TestCase]  # of its current revision


def choose(session: Session, caller: Caller, project: str, case_ids: Collection[uuid.UUID]) -> Chosen:
    """The dataset of the project whose current cases these are; without any, the only dataset of the project.

    A run is pinned to a revision of a dataset, so a part of one cannot be chosen.
    """
    home = projects.get_project(session, caller, project)
    if not case_ids:
        found = session.scalars(_datasets(home.id).where(Dataset.case_count > 0)).all()
        # Where there are several, those that the older client made are meant.
        only = [dataset for dataset in found if dataset.name == STUDIO_DATASET] or found
        if len(only) != 1:
            detail = "name the test cases: there are several datasets" if only else "there are no test cases yet"
            raise field_error(POINTER, f"project {home.name}: {detail}")
        return Chosen(only[0], datasets.rows_of(session, only[0].id, only[0].revision))
    dataset = _dataset_of(session, home.id, case_ids)
    cases = datasets.rows_of(session, dataset.id, dataset.revision)
    if {case.case_id for case in cases} != set(case_ids):
        raise field_error(
            POINTER,
            f"a run takes all {len(cases)} test cases of dataset {dataset.name} as it is now, which the"
            f" {len(set(case_ids))} named here are not; keep the chosen ones in a dataset of their own",
        )
    return Chosen(dataset, cases)


def ids_of(session: Session, dataset_id: uuid.UUID, revision: int) -> list[uuid.UUID]:
    """The test cases of a revision, in order."""
    return [case.case_id for case in datasets.rows_of(session, dataset_id, revision)]


def _dataset_of(session: Session, project_id: uuid.UUID, case_ids: Collection[uuid.UUID]) -> Dataset:
    query = (
        _datasets(project_id)
        .join(TestCase, TestCase.dataset_id == Dataset.id)
        .with_only_columns(TestCase.case_id, TestCase.dataset_id)
        .where(TestCase.removed_in.is_(None), TestCase.case_id.in_(case_ids))
    )
    # The copies of a selection that was renamed have the same ids; what they were made of is older, and comes last.
    of_case = dict(session.execute(query.order_by(TestCase.created_at.desc())).all())
    unknown = [
        FieldError(f"{POINTER}/{index}", f"no test case {case_id} in the project")
        for index, case_id in enumerate(case_ids)
        if case_id not in of_case
    ]
    if unknown:
        raise Unprocessable("; ".join(map(str, unknown[:5])), errors=unknown[:20])
    if len(set(of_case.values())) > 1:
        raise field_error(POINTER, "they are of several datasets; a run takes the test cases of one")
    return session.get_one(Dataset, next(iter(of_case.values())))


def _datasets(project_id: uuid.UUID) -> sa.Select[Any]:
    return datasets.live().where(Dataset.project_id == project_id, Dataset.name != SELECTED)


def get_case(
    session: Session, caller: Caller, case_id: uuid.UUID, *, writing: bool = False
) -> tuple[Dataset, TestCase]:
    """A current test case by its id alone, with its dataset. `writing`: the dataset is locked for a change."""
    query = (
        projects.living_in(session, caller, Dataset, None)
        .join(TestCase, TestCase.dataset_id == Dataset.id)
        .where(Dataset.deleted_at.is_(None), Dataset.name != SELECTED)
        .where(TestCase.case_id == case_id, TestCase.removed_in.is_(None))
        .order_by(TestCase.created_at)  # a selection that was renamed has copies, which are younger
        .limit(1)
    )
    dataset = session.scalars(query).one_or_none()
    if dataset is None:
        raise NotFound(f"no test case {case_id}", fields=["test_case_id"])
    if writing:
        projects.get_project(session, caller, str(dataset.project_id), writing=True)
        dataset = datasets.lock(session, dataset)
    return dataset, test_cases.get_case(session, dataset, case_id)


def studio_dataset(session: Session, caller: Caller, project_id: uuid.UUID) -> Dataset:
    """The project's dataset of these cases, made when it is first written to."""
    return _made(session, caller, project_id, STUDIO_DATASET, "The test cases of Prompt Studio's clients.")


def find_studio_dataset(session: Session, caller: Caller, project_id: uuid.UUID) -> Dataset | None:
    home = projects.get_project(session, caller, str(project_id))
    return session.scalars(_datasets(home.id).where(Dataset.name == STUDIO_DATASET)).one_or_none()


def pin(session: Session, caller: Caller, project_id: uuid.UUID, case_ids: Sequence[uuid.UUID]) -> tuple[str, int]:
    """(dataset, revision) that hold exactly these current cases of one dataset of the project, for a run.

    Where they are some of a dataset, a revision of the project's dataset of selections is made of them.
    """
    dataset = _dataset_of(session, project_id, case_ids)
    cases = datasets.rows_of(session, dataset.id, dataset.revision)
    chosen = [case for case in cases if case.case_id in set(case_ids)]
    if len(chosen) == len(cases):
        return dataset.name, dataset.revision
    about = "What was run on some test cases of the project; each revision is one selection."
    selection = datasets.lock(session, _made(session, caller, project_id, SELECTED, about))
    before = datasets.rows_of(session, selection.id, selection.revision)
    if list(map(_copied, before)) != list(map(_copied, chosen)):
        test_cases.replace_cases(session, caller, selection, chosen)
    return selection.name, selection.revision


def _copied(case: TestCase) -> dict[str, Any]:
    """All that a copy has of its case: what weighs otherwise is another selection."""
    return {"case_id": case.case_id, **row_of(case)}


def _made(session: Session, caller: Caller, project_id: uuid.UUID, name: str, about: str) -> Dataset:
    home = projects.get_project(session, caller, str(project_id), writing=True)
    wanted = datasets.live().where(Dataset.project_id == home.id, Dataset.name == name)
    found = session.scalars(wanted).one_or_none()
    if found is not None:
        return found
    try:
        return datasets.create_dataset(session, caller, name=name, description=about, project=str(home.id))
    except AlreadyExists:  # by somebody else, since the statement before
        return session.scalars(wanted).one()

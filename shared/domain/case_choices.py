"""Test cases named one by one, as the dataset that a run can be pinned to: all of its cases, or an error that says why.

For clients who know no datasets.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import datasets, projects
from shared.domain.tenants import Caller
from shared.errors import FieldError, Unprocessable, field_error
from shared.models import Dataset, TestCase

POINTER = "/test_case_ids"


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
        found = session.scalars(
            sa.select(Dataset).where(Dataset.project_id == home.id, Dataset.case_count > 0).limit(2)
        )
        only = found.all()
        if len(only) != 1:
            detail = "name the test cases: there are several datasets" if only else "there are no test cases yet"
            raise field_error(POINTER, f"project {home.name}: {detail}")
        return Chosen(only[0], datasets.cases_of(session, only[0].id, only[0].revision))
    dataset = _dataset_of(session, home.id, case_ids)
    cases = datasets.cases_of(session, dataset.id, dataset.revision)
    if {case.id for case in cases} != set(case_ids):
        raise field_error(
            POINTER,
            f"a run takes all {len(cases)} test cases of dataset {dataset.name} as it is now, which the"
            f" {len(set(case_ids))} named here are not; keep the chosen ones in a dataset of their own",
        )
    return Chosen(dataset, cases)


def ids_of(session: Session, dataset_id: uuid.UUID, revision: int) -> list[uuid.UUID]:
    """The test cases of a revision, in order."""
    return [case.id for case in datasets.cases_of(session, dataset_id, revision)]


def _dataset_of(session: Session, project_id: uuid.UUID, case_ids: Collection[uuid.UUID]) -> Dataset:
    query = (
        sa.select(TestCase.id, TestCase.dataset_id)
        .join(Dataset, Dataset.id == TestCase.dataset_id)
        .where(Dataset.project_id == project_id, TestCase.id.in_(case_ids))
    )
    of_case = dict(session.execute(query).all())
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

"""Chosen test cases as a revision to be run on: the copies are what they were made of, and nobody takes one for it."""

import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import db
from shared.domain import case_choices, datasets, projects, test_cases
from shared.domain.case_files import case_of
from shared.domain.tenants import Caller
from shared.models import Dataset, TestCase


@pytest.fixture
def ids(admin: Caller) -> list[uuid.UUID]:
    """Three cases of a dataset of the project `default`, of which two are to be chosen."""
    with db.transaction() as session:
        dataset = datasets.create_dataset(session, admin, name="tickets")
        rows = [case_of({"inputs": {"text": text}, "expected": text}) for text in ("a", "b", "c")]
        test_cases.import_cases(session, "", dataset, rows)
        return [case.case_id for case in datasets.cases_of(session, dataset.id, 1)]


def pin(caller: Caller, ids: Sequence[uuid.UUID]) -> tuple[str, int]:
    with db.transaction() as session:
        home = projects.get_project(session, caller, None)
        return case_choices.pin(session, caller, home.id, ids)


def selection(session: Session, caller: Caller, name: str = case_choices.SELECTED) -> Dataset:
    return datasets.get_dataset(session, caller, name)


def change(caller: Caller, case_id: uuid.UUID, **fields: Any) -> None:
    with db.transaction() as session:
        dataset, case = case_choices.get_case(session, caller, case_id, writing=True)
        test_cases.change_case(session, caller, dataset, case, fields)


def test_the_same_choice_is_pinned_to_the_same_revision(admin: Caller, ids: list[uuid.UUID]) -> None:
    assert pin(admin, ids[:2]) == pin(admin, ids[:2]) == (case_choices.SELECTED, 1)


@pytest.mark.parametrize("fields", [{"weight": 3.0}, {"tags": ["x"]}, {"group": "g"}, {"name": "n"}])
def test_a_case_that_weighs_otherwise_is_run_with_its_new_weight(
    admin: Caller, ids: list[uuid.UUID], fields: dict[str, Any]
) -> None:
    pin(admin, ids[:2])
    change(admin, ids[0], **fields)

    name, revision = pin(admin, ids[:2])

    with db.reading() as session:
        copies = datasets.cases_of(session, selection(session, admin).id, revision)
        copy = session.get_one(TestCase, copies[0].id)
    assert (name, revision) == (case_choices.SELECTED, 2)
    assert {field: getattr(copy, field) for field in fields} == fields


def test_a_copy_that_is_restored_is_at_nobodys_place(admin: Caller, ids: list[uuid.UUID]) -> None:
    pin(admin, ids[:2])
    pin(admin, ids[2:])
    with db.transaction() as session:
        test_cases.restore_case(session, admin, datasets.lock(session, selection(session, admin)), ids[0])

    with db.reading() as session:
        dataset = selection(session, admin)
        first = test_cases.list_cases(session, dataset, limit=1, cursor=None)
        rest = test_cases.list_cases(session, dataset, limit=5, cursor=first.next_cursor)
    assert [case.case_id for case in [*first.data, *rest.data]] == [ids[0], ids[2]]


def test_a_case_is_that_of_its_dataset_though_a_selection_was_renamed(admin: Caller, ids: list[uuid.UUID]) -> None:
    pin(admin, ids[:2])
    with db.transaction() as session:
        datasets.update_dataset(session, admin, datasets.lock(session, selection(session, admin)), name="mine")

    with db.reading() as session:
        dataset, case = case_choices.get_case(session, admin, ids[0])
        owner = session.scalars(sa.select(TestCase.dataset_id).where(TestCase.id == ids[0])).one()
        chosen = case_choices.choose(session, admin, "default", ids)

    assert (dataset.name, case.dataset_id) == ("tickets", owner)
    assert chosen.dataset.name == "tickets"

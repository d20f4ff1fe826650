"""Test cases of Prompt Studio: those of the project's dataset `test-cases`, which the first write makes.

Two cases of a dataset never have the same inputs and expected outputs: a second one is a 409 that names the first.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import Flag
from app.api.content import Length, TrueOrFalse
from app.auth import caller
from app.compat.prompt_studio import Identified, StudioPageQuery, envelope_of, enveloped, paged, studio_blueprint
from shared.db import reading, transaction
from shared.domain import case_choices, pages, test_cases
from shared.domain.case_files import MAX_DESCRIPTION, MAX_NAME, NewCase, case_of, problem_of
from shared.domain.tenants import Caller
from shared.domain.test_cases import Filter
from shared.errors import Conflict, FieldError, Unprocessable, field_error
from shared.models import Dataset, Role, TestCase

blp = studio_blueprint("test-cases", "Prompt Studio: test cases.")
MAX_BULK = 1_000
OURS = {
    "name": "name",
    "description": "description",
    "inputs": "inputs",
    "expected_outputs": "expected",
    "tags": "tags",
    "is_golden": "golden",
    "is_generated": "generated",
}
NO_SIGNATURES = "there are no signatures; leave it out, or null"


def signature_field() -> ma.fields.Raw:
    return ma.fields.Raw(allow_none=True, metadata={"description": "null: there are no signatures"})


class StudioCaseFields(ma.Schema):
    name = ma.fields.String(allow_none=True, validate=Length(max=MAX_NAME))
    description = ma.fields.String(allow_none=True, validate=Length(max=MAX_DESCRIPTION))
    expected_outputs = ma.fields.Raw(allow_none=True, metadata={"description": "An object, or any other JSON"})
    tags = ma.fields.List(ma.fields.String(), allow_none=True)
    is_golden = TrueOrFalse()
    is_generated = TrueOrFalse()
    signature_id = signature_field()


class StudioCase(StudioCaseFields):
    inputs = ma.fields.Dict(keys=ma.fields.String(), required=True, validate=Length(1))


class StudioCaseIn(StudioCase):
    project_id = ma.fields.UUID(required=True)


class StudioCasesIn(ma.Schema):
    project_id = ma.fields.UUID(required=True)
    signature_id = signature_field()
    test_cases = ma.fields.List(ma.fields.Nested(StudioCase), required=True, validate=Length(1, MAX_BULK))


class StudioCaseChange(StudioCaseFields):
    inputs = ma.fields.Dict(keys=ma.fields.String(), validate=Length(1))


class StudioCaseOut(Identified):
    id = ma.fields.UUID(attribute="case_id")
    uuid = ma.fields.Function(lambda case: str(case.case_id))
    project_id = ma.fields.UUID()
    signature_id = ma.fields.Constant(None)
    name = ma.fields.String()
    description = ma.fields.String()
    inputs = ma.fields.Raw()
    expected_outputs = ma.fields.Raw(attribute="expected", allow_none=True)
    actual_outputs = ma.fields.Constant(None, metadata={"description": "What was answered is in the evaluations"})
    tags = ma.fields.Raw()
    is_golden = ma.fields.Boolean(attribute="golden")
    is_generated = ma.fields.Boolean(attribute="generated")
    created_at = ma.fields.DateTime()


class StudioDeletedCaseOut(ma.Schema):
    id = ma.fields.String()
    uuid = ma.fields.String()
    deleted = ma.fields.Boolean()
    permanent = ma.fields.Boolean()


class StudioCasesQuery(StudioPageQuery):
    is_golden = Flag(load_default=None)
    tags = ma.fields.String(load_default=None, metadata={"description": "A comma list: with any of these"})
    search = ma.fields.String(load_default=None, validate=Length(1, 200))
    signature_id = ma.fields.String(load_default=None, metadata={"description": "None: there are no signatures"})


class StudioCaseDeleteQuery(ma.Schema):
    permanent = Flag(
        load_default=False, metadata={"description": "Also from older revisions, if none was run; role admin"}
    )


@blp.post("/test-cases/create")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioCaseIn)
@blp.response(201, envelope_of(StudioCaseOut))
def create_case(body: dict[str, Any]) -> flask.Response:
    """Create a test case"""
    author = caller(Role.EDITOR)
    [new] = _checked([body], at="")

    def make(session: Session, _: Any) -> Any:
        dataset = case_choices.studio_dataset(session, author, body["project_id"])
        made = _add(session, author, dataset, [new])
        if not made:
            other = test_cases.find_same(session, dataset, new)
            raise Conflict(f"test case {other} has these inputs and expected outputs already")
        return enveloped(_rendered(dataset, made[0]))

    return replay.create(author, flask.g.body, 201, make)


@blp.post("/test-cases/bulk")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioCasesIn)
@blp.response(201, envelope_of(StudioCaseOut, many=True))
def create_cases(body: dict[str, Any]) -> flask.Response:
    """Create test cases: all of them or none; what is there already is left out, and a warning says so"""
    author = caller(Role.EDITOR)
    refuse_signature(body)
    new = _checked(body["test_cases"], at="/test_cases")

    def make(session: Session, _: Any) -> Any:
        dataset = case_choices.studio_dataset(session, author, body["project_id"])
        made = _add(session, author, dataset, new)
        left_out = len(new) - len(made)
        warnings = [f"{left_out} have inputs and expected outputs that are there already"] if left_out else []
        return enveloped([_rendered(dataset, case) for case in made], warnings=warnings)

    return replay.create(author, flask.g.body, 201, make)


@blp.get("/test-cases/list/<uuid:project_id>")
@blp.arguments(StudioCasesQuery, location="query")
@blp.response(200, envelope_of(StudioCaseOut, many=True))
def list_cases(query: dict[str, Any], project_id: uuid.UUID) -> flask.Response:
    """List the test cases of a project, in the order in which they were made"""
    page, size = query["page"], query["per_page"]
    if query["signature_id"] is not None:
        raise field_error("?signature_id", NO_SIGNATURES)
    tags = [tag.strip() for tag in (query["tags"] or "").split(",") if tag.strip()]
    wanted = Filter(golden=query["is_golden"], any_tag=tags, q=query["search"])
    with reading() as session:
        dataset = case_choices.find_studio_dataset(session, caller(), project_id)
        if dataset is None:
            return paged([], page=page, per_page=size, total=0)
        found = pages.at_offset(
            session,
            test_cases.matching(session, dataset, wanted),
            TestCase,
            by=TestCase.ordinal,
            limit=size,
            offset=(page - 1) * size,
        )
        rows = [_rendered(dataset, case) for case in found.data]
    return paged(rows, page=page, per_page=size, total=found.total)


@blp.get("/test-cases/get/<uuid:test_case_id>")
@blp.response(200, envelope_of(StudioCaseOut))
def get_case(test_case_id: uuid.UUID) -> flask.Response:
    """Read a test case"""
    with reading() as session:
        return flask.jsonify(enveloped(_rendered(*case_choices.get_case(session, caller(), test_case_id))))


@blp.put("/test-cases/update/<uuid:test_case_id>")
@blp.arguments(StudioCaseChange)
@blp.response(200, envelope_of(StudioCaseOut))
def update_case(body: dict[str, Any], test_case_id: uuid.UUID) -> flask.Response:
    """Change a test case; evaluations that have begun keep it as it was"""
    author = caller(Role.EDITOR)
    refuse_signature(body)
    fields = {OURS[name]: value for name, value in body.items() if name in OURS}
    # What the client sets to null is emptied; null is a value of what is expected alone.
    empty: Mapping[str, Any] = {"name": "", "description": "", "tags": []}
    fields = {name: empty[name] if value is None and name in empty else value for name, value in fields.items()}
    if not fields:
        raise field_error("", f"give at least one of {', '.join(OURS)}")
    with transaction() as session:
        dataset, case = case_choices.get_case(session, author, test_case_id, writing=True)
        test_cases.change_case(session, author, dataset, case, fields)
        return flask.jsonify(enveloped(_rendered(dataset, test_cases.get_case(session, dataset, test_case_id))))


@blp.delete("/test-cases/delete/<uuid:test_case_id>")
@blp.arguments(StudioCaseDeleteQuery, location="query")
@blp.response(200, envelope_of(StudioDeletedCaseOut))
def delete_case(query: dict[str, Any], test_case_id: uuid.UUID) -> flask.Response:
    """Take a test case out of the project; evaluations that have begun keep it"""
    author = caller(Role.ADMIN if query["permanent"] else Role.EDITOR)
    with transaction() as session:
        dataset, case = case_choices.get_case(session, author, test_case_id, writing=True)
        if query["permanent"]:
            test_cases.destroy_case(session, author, dataset, test_case_id)
        else:
            test_cases.remove_case(session, author, dataset, case)
    shown = str(test_case_id)
    return flask.jsonify(enveloped({"id": shown, "uuid": shown, "deleted": True, **query}))


def refuse_signature(body: Mapping[str, Any]) -> None:
    if body.get("signature_id") is not None:
        raise field_error("/signature_id", NO_SIGNATURES)


def ours(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the original as ours; what is null is left out, and what we do not know stays to be refused."""
    return {OURS.get(name, name): value for name, value in row.items() if value is not None}


def _checked(rows: Sequence[Mapping[str, Any]], *, at: str) -> list[NewCase]:
    new, errors = [], []
    for index, row in enumerate(rows):
        refuse_signature(row)
        ours_of_it = ours({name: value for name, value in row.items() if name in OURS})
        problem = problem_of(ours_of_it)
        if problem:
            errors.append(FieldError(f"{at}/{index}" if at else "", problem))
        else:
            new.append(case_of(ours_of_it, index))
    if errors:
        raise Unprocessable("; ".join(map(str, errors[:5])), errors=errors[:20])
    return new


def _add(session: Session, author: Caller, dataset: Dataset, new: Sequence[NewCase]) -> Sequence[TestCase]:
    """The cases that were added, in their order."""
    imported = test_cases.import_cases(session, author.user_name, dataset, new)
    return test_cases.added_in(session, imported.dataset) if imported.added else []


def _rendered(dataset: Dataset, case: TestCase) -> Any:
    return {**StudioCaseOut().dump(case), "project_id": str(dataset.project_id)}

"""/v1/datasets/{name}/cases: test cases, listed, read, changed, removed, restored and made from executions."""

import uuid
from collections.abc import Callable
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import preconditions, replay
from app.api import Digits, Flag, Moment, PageQuery, ProjectQuery, Strict, WholeNumber, blueprint, page_of, render_page
from app.api.content import Length
from app.api.datasets import DatasetOut
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import case_sources, datasets, executions, prompts, test_cases
from shared.domain.case_files import MAX_DESCRIPTION, MAX_GROUP, MAX_NAME, MAX_WEIGHT
from shared.domain.case_sources import EXPECTED, MAX_EXECUTIONS, Collection
from shared.domain.tenants import Caller
from shared.domain.test_cases import Filter
from shared.errors import NotFound, field_error
from shared.models import Dataset, Role, TestCase

blp = blueprint("test_cases", "The cases of a dataset. Each change makes a new revision; an older one keeps its cases.")
Range = ma.validate.Range


class RevisionQuery(ProjectQuery):
    revision = Digits(
        load_default=None, validate=Range(0), metadata={"description": "An older one; the newest if left out"}
    )


class CaseFilter(RevisionQuery):
    tag = ma.fields.String(load_default=None)
    golden = Flag(load_default=None)
    generated = Flag(load_default=None)
    group = ma.fields.String(load_default=None)
    q = ma.fields.String(
        load_default=None,
        validate=Length(1, 200),
        metadata={"description": "A part of the name, the description, the inputs or what is expected, in any case"},
    )


class CasesQuery(PageQuery, CaseFilter):
    """One schema: each of two would refuse the fields of the other."""


class CaseOut(ma.Schema):
    test_case_id = ma.fields.UUID(attribute="case_id", metadata={"description": "Stays when the case changes"})
    ordinal = ma.fields.Integer()
    name = ma.fields.String()
    description = ma.fields.String()
    inputs = ma.fields.Raw()
    expected = ma.fields.Raw(allow_none=True)
    tags = ma.fields.Raw()
    group = ma.fields.String(allow_none=True)
    weight = ma.fields.Float()
    golden = ma.fields.Boolean()
    generated = ma.fields.Boolean(metadata={"description": "A model wrote it"})
    source_execution_id = ma.fields.UUID(allow_none=True, metadata={"description": "The execution it was made from"})
    content_hash = ma.fields.String()
    added_in = ma.fields.Integer(metadata={"description": "The first revision in which it is as it is here"})
    removed_in = ma.fields.Integer(allow_none=True, metadata={"description": "The first in which it no longer is"})


class CasePatch(ma.Schema):
    inputs = ma.fields.Dict(keys=ma.fields.String(), validate=Length(1))
    expected = ma.fields.Raw(allow_none=True)
    name = ma.fields.String(validate=Length(max=MAX_NAME))
    description = ma.fields.String(validate=Length(max=MAX_DESCRIPTION))
    tags = ma.fields.List(ma.fields.String())
    group = ma.fields.String(allow_none=True, validate=Length(1, MAX_GROUP))
    weight = Strict(validate=Range(0, MAX_WEIGHT, min_inclusive=False))
    golden = ma.fields.Boolean(truthy={True}, falsy={False})
    generated = ma.fields.Boolean(truthy={True}, falsy={False})


class ExecutionFilter(ma.Schema):
    """Which executions; what is left out is not asked for."""

    prompt_name = ma.fields.String()
    environment = ma.fields.String()
    purpose = ma.fields.String(validate=ma.validate.OneOf(executions.PURPOSES))
    model_name = ma.fields.String()
    batch_id = ma.fields.UUID()
    correlation_id = ma.fields.String()
    has_feedback = ma.fields.Boolean(truthy={True}, falsy={False})
    created_from = Moment()
    created_before = Moment()


class CollectIn(ma.Schema):
    execution_ids = ma.fields.List(ma.fields.UUID(), validate=Length(1, MAX_EXECUTIONS))
    filter = ma.fields.Nested(ExecutionFilter, metadata={"description": "In place of the ids: those that succeeded"})
    limit = WholeNumber(validate=Range(1, MAX_EXECUTIONS), metadata={"description": "Of a filter: so many, the newest"})
    expected = ma.fields.String(
        validate=ma.validate.OneOf(EXPECTED),
        metadata={"description": "What the case expects: the answer, the label of its newest feedback, or nothing"},
    )
    tags = ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50))
    group = ma.fields.String(validate=Length(1, MAX_GROUP))
    golden = ma.fields.Boolean(truthy={True}, falsy={False})


class SkippedOut(ma.Schema):
    execution_id = ma.fields.UUID()
    detail = ma.fields.String()


class CollectedOut(ma.Schema):
    dataset = ma.fields.Nested(DatasetOut)
    added = ma.fields.Integer()
    duplicates = ma.fields.List(
        ma.fields.UUID(), metadata={"description": "Executions whose case was there already, or came from another"}
    )
    skipped = ma.fields.List(ma.fields.Nested(SkippedOut), metadata={"description": "Those that make no case, and why"})


@blp.get("/datasets/<name>/cases")
@blp.arguments(CasesQuery, location="query")
@blp.response(200, page_of(CaseOut))
def list_cases(query: dict[str, Any], name: str) -> flask.Response:
    """List the cases of a revision, in the order of import"""
    page = {"limit": query.pop("limit"), "cursor": query.pop("cursor")}
    with reading() as session:
        dataset = datasets.get_dataset(session, caller(), name, project=query.pop("project"))
        return flask.jsonify(render_page(CaseOut(), test_cases.list_cases(session, dataset, Filter(**query), **page)))


@blp.get("/datasets/<name>/cases/<uuid:test_case_id>")
@blp.arguments(RevisionQuery, location="query")
@blp.response(200, CaseOut)
def get_case(query: dict[str, Any], name: str, test_case_id: uuid.UUID) -> flask.Response:
    """Read a case, as it is or as it was in an older revision"""
    with reading() as session:
        dataset = datasets.get_dataset(session, caller(), name, project=query["project"])
        return _case(test_cases.get_case(session, dataset, test_case_id, revision=query["revision"]))


@blp.patch("/datasets/<name>/cases/<uuid:test_case_id>")
@blp.doc(parameters=[preconditions.IF_MATCH])
@blp.arguments(CasePatch)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, CaseOut)
def update_case(body: dict[str, Any], scope: dict[str, Any], name: str, test_case_id: uuid.UUID) -> flask.Response:
    """Change a case in a new revision; older revisions, and what runs on them, keep it as it was"""
    if not body:
        raise field_error("", "give at least one field to change")

    def change(session: Session, author: Caller, dataset: Dataset, case: TestCase) -> None:
        test_cases.change_case(session, author, dataset, case, body)

    return _changed(name, test_case_id, scope, change)


@blp.delete("/datasets/<name>/cases/<uuid:test_case_id>")
@blp.doc(parameters=[preconditions.IF_MATCH])
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, CaseOut)
def remove_case(scope: dict[str, Any], name: str, test_case_id: uuid.UUID) -> flask.Response:
    """Take a case out of the dataset in a new revision; older revisions keep it, and it can be restored"""
    return _changed(name, test_case_id, scope, test_cases.remove_case, is_there=False)


@blp.post("/datasets/<name>/cases/<uuid:test_case_id>/restore")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, CaseOut)
def restore_case(scope: dict[str, Any], name: str, test_case_id: uuid.UUID) -> flask.Response:
    """Put a removed case back to its place, as it was last"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        dataset = datasets.lock_dataset(session, author, name, **scope)
        test_cases.restore_case(session, author, dataset, test_case_id)
        return _case(test_cases.get_case(session, dataset, test_case_id))


@blp.post("/datasets/<name>/cases:from-executions")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(CollectIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(201, CollectedOut)
def collect_cases(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Make cases from executions: by their ids, or the newest that a filter finds

    The variables are the inputs. An answer that is a JSON object or list is expected as that, any other as its text.
    A case remembers its execution as `source_execution_id`.
    """
    author = caller(Role.EDITOR)

    def plan() -> Any:
        with reading() as session:
            dataset = datasets.get_dataset(session, author, name, **scope, writing=True)
            return dataset, *case_sources.collect(session, author, _collection(session, author, dataset, body))

    def make(session: Session, planned: Any) -> Any:
        dataset, cases, skipped = planned
        imported = test_cases.import_cases(session, author.user_name, dataset, cases, action="collected")
        duplicates = [cases[place].source_execution_id for place in imported.duplicates]
        result = {"dataset": imported.dataset, "added": imported.added, "duplicates": duplicates, "skipped": skipped}
        return CollectedOut().dump(result)

    return replay.create(author, body, 201, make, plan=plan)


def _collection(session: Session, author: Caller, dataset: Dataset, body: dict[str, Any]) -> Collection:
    fields = dict(body)
    ids, asked = fields.pop("execution_ids", None), fields.pop("filter", None)
    if (ids is None) == (asked is None):
        raise field_error("", "give either execution_ids or filter")
    fields["tags"] = tuple(fields.get("tags", ()))
    if ids is not None:
        if "limit" in fields:
            raise field_error("/limit", "goes with a filter")
        return Collection(ids=list(dict.fromkeys(ids)), **fields)
    project = str(dataset.project_id)
    if prompt_name := asked.pop("prompt_name", None):
        try:
            asked["prompt_id"] = prompts.get_prompt(session, author, prompt_name, project=project).id
        except NotFound as error:
            raise NotFound(error.detail, fields=["filter"]) from error
    return Collection(wanted=executions.Filter(project=project, state="succeeded", **asked), **fields)


def _changed(
    name: str,
    case_id: uuid.UUID,
    scope: dict[str, Any],
    change: Callable[[Session, Caller, Dataset, TestCase], None],
    *,
    is_there: bool = True,
) -> flask.Response:
    author = caller(Role.EDITOR)
    with transaction() as session:
        dataset = datasets.lock_dataset(session, author, name, **scope)
        case = test_cases.get_case(session, dataset, case_id)
        preconditions.asked().check(test_cases.etag_of(case), f"the test case {case_id}")
        change(session, author, dataset, case)
        return _case(test_cases.get_case(session, dataset, case_id) if is_there else case)


def _case(case: TestCase) -> flask.Response:
    return preconditions.tagged(flask.jsonify(CaseOut().dump(case)), test_cases.etag_of(case))

"""/v1/prompts/{name}/labels: movable pointers to versions, their history, and who may move them."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import preconditions
from app.api import ListQuery, Moment, PageQuery, ProjectQuery, WholeNumber, blueprint, page_of, render_page
from app.auth import caller
from app.preconditions import IF_MATCH, IF_NONE_MATCH
from shared.db import reading, transaction
from shared.domain import label_protections, label_requests, labels, prompts
from shared.domain.labels import Placed
from shared.domain.names import PRODUCTION, VersionChoice, check_label
from shared.domain.tenants import Caller
from shared.errors import field_error
from shared.models import LabelRequest, Prompt, RequestState, Role

blp = blueprint("labels", "Labels: movable pointers to versions, with a history, and protection of those that matter.")
Length = ma.validate.Length


class ProtectionOut(ma.Schema):
    role = ma.fields.String(allow_none=True, metadata={"description": "The least role that moves it"})
    approvals = ma.fields.Integer(allow_none=True, metadata={"description": "How many other people must agree"})


class LabelOut(ma.Schema):
    label = ma.fields.String()
    version_number = ma.fields.Integer()
    protected = ma.fields.Boolean()
    protection = ma.fields.Nested(ProtectionOut, allow_none=True)
    moved_by = ma.fields.String()
    moved_at = ma.fields.DateTime()


class PlacedOut(ma.Schema):
    prompt_id = ma.fields.UUID()
    prompt_name = ma.fields.String()
    project_id = ma.fields.UUID()
    label = ma.fields.String()
    version_number = ma.fields.Integer()
    moved_by = ma.fields.String()
    moved_at = ma.fields.DateTime()


class MoveOut(ma.Schema):
    move_id = ma.fields.Integer(attribute="id", metadata={"description": "The label's ETag after this move"})
    from_version = ma.fields.Integer(allow_none=True, metadata={"description": "null: there was no such label"})
    to_version = ma.fields.Integer(allow_none=True, metadata={"description": "null: it was deleted"})
    undoes = ma.fields.Integer(allow_none=True, metadata={"description": "The move that this one took back"})
    reason = ma.fields.String()
    moved_by = ma.fields.String()
    approved_by = ma.fields.String(allow_none=True)
    moved_at = ma.fields.DateTime()


class LabelRequestOut(ma.Schema):
    request_id = ma.fields.UUID(attribute="id")
    state = ma.fields.String(metadata={"description": "pending, approved, rejected, superseded"})
    prompt_id = ma.fields.UUID()
    prompt_name = ma.fields.String()
    project_id = ma.fields.UUID()
    label = ma.fields.String()
    from_version = ma.fields.Integer(allow_none=True)
    to_version = ma.fields.Integer(allow_none=True, metadata={"description": "null: delete it"})
    reason = ma.fields.String()
    asked_by = ma.fields.String()
    asked_at = ma.fields.DateTime(attribute="created_at")
    decided_by = ma.fields.String(allow_none=True)
    decided_at = ma.fields.DateTime(allow_none=True)
    decision = ma.fields.String(metadata={"description": "The reason that the second person gave"})


class ReasonIn(ma.Schema):
    reason = ma.fields.String(load_default="", validate=Length(max=500))


class LabelIn(ReasonIn):
    version_number = WholeNumber(required=True, validate=ma.validate.Range(1, 999_999_999))


class ProtectionIn(ma.Schema):
    """One of the two."""

    role = ma.fields.String(validate=ma.validate.OneOf([Role.OPERATOR.value, Role.ADMIN.value]))
    approvals = WholeNumber(validate=ma.validate.Equal(1))


class AtQuery(ProjectQuery):
    at = Moment(load_default=None, metadata={"description": "Where it pointed then, with an offset; now if left out"})


class MovesQuery(PageQuery, ProjectQuery):
    """One schema: each of two would refuse the fields of the other."""


class DeleteQuery(ProjectQuery):
    reason = ma.fields.String(load_default="", validate=Length(max=500))


class PlacedQuery(ListQuery):
    label = ma.fields.String(load_default=PRODUCTION)
    at = AtQuery._declared_fields["at"]


class RequestsQuery(ListQuery):
    state = ma.fields.String(load_default=None, validate=ma.validate.OneOf([state.value for state in RequestState]))


ASKED = {"schema": LabelRequestOut, "description": "It takes a second person; this is the request"}


@blp.get("/labels")
@blp.arguments(PlacedQuery, location="query")
@blp.response(200, page_of(PlacedOut))
def list_placed(query: dict[str, Any]) -> flask.Response:
    """What does, or did, a label point at, for every prompt that has it; newest prompt first"""
    check_label(query["label"], "?label")
    with reading() as session:
        page, placed = labels.list_placed(session, caller(), **query)
        rows = [
            {**vars(placed[prompt.id]), "prompt_name": prompt.name, "project_id": prompt.project_id}
            for prompt in page.data
        ]
        return flask.jsonify(render_page(PlacedOut(), page, rows))


@blp.get("/prompts/<name>/labels")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, page_of(LabelOut))
def list_labels(scope: dict[str, Any], name: str) -> flask.Response:
    """List a prompt's labels"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, **scope)
        return flask.jsonify({"data": rendered(labels.list_labels(session, prompt)), "next_cursor": None})


@blp.get("/prompts/<name>/labels/<label>")
@blp.arguments(AtQuery, location="query")
@blp.response(200, LabelOut)
def get_label(query: dict[str, Any], name: str, label: str) -> flask.Response:
    """Where a label points, or pointed at a time"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query["project"])
        return _placed(labels.get_label(session, prompt, label, at=query["at"]))


@blp.put("/prompts/<name>/labels/<label>")
@blp.doc(parameters=[IF_MATCH, IF_NONE_MATCH])
@blp.arguments(LabelIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, LabelOut)
@blp.alt_response(202, **ASKED)
def move_label(body: dict[str, Any], scope: dict[str, Any], name: str, label: str) -> flask.Response:
    """Point a label at a version"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        prompt = prompts.get_prompt(session, author, name, **scope, writing=True)
        version = prompts.get_version(session, prompt, VersionChoice(number=body["version_number"]))
        moved = labels.move_label(
            session, author, prompt, label, version, reason=body["reason"], precondition=preconditions.asked()
        )
        return _outcome(moved, prompt)


@blp.delete("/prompts/<name>/labels/<label>")
@blp.doc(parameters=[IF_MATCH])
@blp.arguments(DeleteQuery, location="query")
@blp.response(204)
@blp.alt_response(202, **ASKED)
def delete_label(query: dict[str, Any], name: str, label: str) -> flask.Response:
    """Remove a label; its history and its protection stay"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        prompt = prompts.get_prompt(session, author, name, project=query["project"], writing=True)
        request = labels.delete_label(
            session, author, prompt, label, reason=query["reason"], precondition=preconditions.asked()
        )
        return flask.Response(status=204) if request is None else _outcome(request, prompt)


@blp.post("/prompts/<name>/labels/<label>/undo")
@blp.doc(parameters=[IF_MATCH])
@blp.arguments(ReasonIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, LabelOut)
@blp.alt_response(202, **ASKED)
def undo_move(body: dict[str, Any], scope: dict[str, Any], name: str, label: str) -> flask.Response:
    """Point a label at what it pointed at before its last move

    Again walks further back. Send If-Match, so that a request that is repeated walks back once.
    """
    author = caller(Role.EDITOR)
    with transaction() as session:
        prompt = prompts.get_prompt(session, author, name, **scope, writing=True)
        moved = labels.undo_move(session, author, prompt, label, **body, precondition=preconditions.asked())
        return _outcome(moved, prompt)


@blp.get("/prompts/<name>/labels/<label>/history")
@blp.arguments(MovesQuery, location="query")
@blp.response(200, page_of(MoveOut))
def list_moves(query: dict[str, Any], name: str, label: str) -> flask.Response:
    """List the moves of a label, newest first"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query.pop("project"))
        return flask.jsonify(render_page(MoveOut(), labels.list_moves(session, prompt, label, **query)))


@blp.get("/prompts/<name>/labels/<label>/protection")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, ProtectionOut)
def get_protection(scope: dict[str, Any], name: str, label: str) -> flask.Response:
    """What a move of a label takes; both null: nothing but the role editor"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, **scope)
        found = label_protections.find_protection(session, prompt.id, check_label(label))
        return flask.jsonify(_protection(found))


@blp.put("/prompts/<name>/labels/<label>/protection")
@blp.arguments(ProtectionIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, ProtectionOut)
def protect_label(body: dict[str, Any], scope: dict[str, Any], name: str, label: str) -> flask.Response:
    """Let a role or a second person decide on the moves of a label; it need not exist yet"""
    author = caller(Role.OPERATOR)
    if len(body) != 1:
        raise field_error("/role", "give either role or approvals")
    role = Role(body["role"]) if "role" in body else None
    return _protect(author, name, label, scope, role=role, approvals=body.get("approvals"))


@blp.delete("/prompts/<name>/labels/<label>/protection")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, ProtectionOut)
def unprotect_label(scope: dict[str, Any], name: str, label: str) -> flask.Response:
    """Let every editor move a label again"""
    return _protect(caller(Role.OPERATOR), name, label, scope)


@blp.get("/label-requests")
@blp.arguments(RequestsQuery, location="query")
@blp.response(200, page_of(LabelRequestOut))
def list_requests(query: dict[str, Any]) -> flask.Response:
    """List the moves that were asked for, newest first"""
    with reading() as session:
        page = label_requests.list_requests(session, caller(), **query)
        names = prompts.names_of(session, {request.prompt_id for request in page.data})
        rows = [_request(request, names[request.prompt_id]) for request in page.data]
        return flask.jsonify({"data": rows, "next_cursor": page.next_cursor})


@blp.get("/label-requests/<uuid:request_id>")
@blp.response(200, LabelRequestOut)
def get_request(request_id: uuid.UUID) -> flask.Response:
    """Read a move that was asked for"""
    with reading() as session:
        return _answered(session, label_requests.get_request(session, caller(), request_id))


@blp.post("/label-requests/<uuid:request_id>/approve")
@blp.arguments(ReasonIn)
@blp.response(200, LabelRequestOut)
def approve_request(body: dict[str, Any], request_id: uuid.UUID) -> flask.Response:
    """Make the move, as a second person; 409 when the label was moved since it was asked for"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        return _answered(session, label_requests.approve_request(session, author, request_id, **body))


@blp.post("/label-requests/<uuid:request_id>/reject")
@blp.arguments(ReasonIn)
@blp.response(200, LabelRequestOut)
def reject_request(body: dict[str, Any], request_id: uuid.UUID) -> flask.Response:
    """Refuse the move; whoever asked for it withdraws it so"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        return _answered(session, label_requests.reject_request(session, author, request_id, **body))


def rendered(placed: list[Placed]) -> Any:
    return LabelOut().dump(placed, many=True)


def _placed(placed: Placed) -> flask.Response:
    answer = flask.jsonify(LabelOut().dump(placed))
    return preconditions.tagged(answer, placed.etag) if placed.etag else answer


def _outcome(outcome: Placed | LabelRequest, prompt: Prompt) -> flask.Response:
    if isinstance(outcome, Placed):
        return _placed(outcome)
    answer = flask.jsonify(_request(outcome, prompt.name))
    answer.status_code = 202
    answer.headers["Location"] = f"/v1/label-requests/{outcome.id}"
    return answer


def _answered(session: Session, request: LabelRequest) -> flask.Response:
    return flask.jsonify(_request(request, prompts.names_of(session, {request.prompt_id})[request.prompt_id]))


def _request(request: LabelRequest, prompt_name: str) -> Any:
    return {**LabelRequestOut().dump(request), "prompt_name": prompt_name}


def _protect(author: Caller, name: str, label: str, scope: dict[str, Any], **wanted: Any) -> flask.Response:
    with transaction() as session:
        prompt = prompts.get_prompt(session, author, name, **scope, writing=True)
        return flask.jsonify(_protection(label_protections.protect_label(session, author, prompt, label, **wanted)))


def _protection(protection: Any) -> Any:
    return ProtectionOut().dump(protection or {"role": None, "approvals": None})

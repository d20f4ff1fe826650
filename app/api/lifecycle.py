"""/v1/prompts/{name}/lifecycle: draft, published, deprecated, archived; one prompt or several."""

from typing import Any

import flask
import marshmallow as ma

from app.api import PageQuery, ProjectQuery, blueprint, page_of, project_field, render_page
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import lifecycle, prompts
from shared.domain.lifecycle import TRANSITIONS, Lifecycle, Transition
from shared.models import Prompt, Role

blp = blueprint("lifecycle", "The lifecycle of prompts: draft, published, deprecated, archived.")
Length = ma.validate.Length
MAX_NAMES = 500


class LifecycleIn(ma.Schema):
    state = ma.fields.String(required=True, validate=ma.validate.OneOf([state.value for state in Lifecycle]))
    reason = ma.fields.String(load_default="", validate=Length(max=500))


class LifecycleBatchIn(LifecycleIn):
    names = ma.fields.List(ma.fields.String(), required=True, validate=Length(1, MAX_NAMES))
    project = project_field()


class LifecycleOut(ma.Schema):
    prompt_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    state = ma.fields.String(attribute="lifecycle")
    allowed = ma.fields.Function(
        lambda prompt: list(TRANSITIONS[Lifecycle(prompt.lifecycle)]),
        metadata={"description": "The states that it can have next"},
    )


class LifecycleChangedOut(LifecycleOut):
    previous_state = ma.fields.String()


class LifecycleChangeOut(ma.Schema):
    from_state = ma.fields.String()
    to_state = ma.fields.String()
    reason = ma.fields.String()
    changed_by = ma.fields.String()
    changed_at = ma.fields.DateTime()


class LifecycleHistoryOut(LifecycleOut, page_of(LifecycleChangeOut)):  # type: ignore[misc]
    """The state, and the changes that led to it, newest first."""


class LifecycleItemError(ma.Schema):
    code = ma.fields.String()
    detail = ma.fields.String()


class LifecycleItemOut(ma.Schema):
    name = ma.fields.String()
    state = ma.fields.String(metadata={"description": "Left out when there is no such prompt"})
    previous_state = ma.fields.String()
    error = ma.fields.Nested(LifecycleItemError, metadata={"description": "Only if it could not be changed"})


class LifecycleBatchOut(ma.Schema):
    changed = ma.fields.Integer(metadata={"description": "Without those that were in that state already"})
    failed = ma.fields.Integer()
    results = ma.fields.List(
        ma.fields.Nested(LifecycleItemOut), metadata={"description": "One for each name, in their order"}
    )


class LifecycleCountsOut(ma.Schema):
    counts = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())


class HistoryQuery(PageQuery, ProjectQuery):
    """One schema: each of two would refuse the fields of the other."""


class CountsQuery(ma.Schema):
    project = project_field(load_default=None, metadata={"description": "Name or id; every project if left out"})


@blp.get("/prompts/<name>/lifecycle")
@blp.arguments(HistoryQuery, location="query")
@blp.response(200, LifecycleHistoryOut)
def get_lifecycle(query: dict[str, Any], name: str) -> flask.Response:
    """The state of a prompt, what it can become, and who changed it when and why"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query.pop("project"))
        page = lifecycle.list_changes(session, prompt, **query)
        return flask.jsonify({**LifecycleOut().dump(prompt), **render_page(LifecycleChangeOut(), page)})


@blp.put("/prompts/<name>/lifecycle")
@blp.arguments(LifecycleIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, LifecycleChangedOut)
def change_state(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Move a prompt on in its lifecycle; 409 when the state does not allow it, or changed at the same moment"""
    author = caller(Role.EDITOR)
    with reading() as session:
        seen: Prompt = prompts.get_prompt(session, author, name, **scope, writing=True)
    with transaction() as session:
        changed = lifecycle.change_state(session, author, seen, Lifecycle(body["state"]), reason=body["reason"])
        return flask.jsonify({**LifecycleOut().dump(changed), "previous_state": seen.lifecycle})


@blp.post("/lifecycle:batch")
@blp.arguments(LifecycleBatchIn)
@blp.response(200, LifecycleBatchOut)
def change_states(body: dict[str, Any]) -> flask.Response:
    """Move up to 500 prompts on, each as far as it can be; a result for each"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        found = lifecycle.change_states(
            session,
            author,
            body["names"],
            Lifecycle(body["state"]),
            project=body.get("project"),
            reason=body["reason"],
        )
    failed = sum(item.error is not None for item in found)
    changed = sum(item.error is None and item.state != item.previous for item in found)
    return flask.jsonify({"changed": changed, "failed": failed, "results": [_item(item) for item in found]})


@blp.get("/lifecycle")
@blp.arguments(CountsQuery, location="query")
@blp.response(200, LifecycleCountsOut)
def count_states(query: dict[str, Any]) -> flask.Response:
    """How many prompts are in each state"""
    with reading() as session:
        return flask.jsonify({"counts": lifecycle.count_states(session, caller(), **query)})


def _item(item: Transition) -> dict[str, Any]:
    result: dict[str, Any] = {"name": item.name}
    if item.state is not None:
        result |= {"state": item.state, "previous_state": item.previous}
    if item.error is not None:
        result["error"] = {"code": item.error.code, "detail": item.error.detail}
    return result

"""/api/v1/prompts/{id}/lifecycle and /api/v1/lifecycle: the same four states, and our ways between them."""

from typing import Any

import flask
import marshmallow as ma

from app.auth import caller
from app.compat.prompt_store import (
    ActorQuery,
    Length,
    SliceQuery,
    answer,
    blueprint,
    either,
    enveloped,
    find,
    home,
    required,
)
from app.compat.prompt_store.prompts import StorePromptOut, rendered
from shared.db import reading, transaction
from shared.domain import lifecycle, prompts
from shared.domain.lifecycle import TRANSITIONS, Lifecycle
from shared.errors import NotFound, PromptmillError
from shared.models import Role

blp = blueprint("lifecycle", "draft, published, deprecated, archived.")
STATES = [state.value for state in Lifecycle]
MOST = 500


class StoreStatusIn(ma.Schema):
    status = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    reason = ma.fields.String(load_default="", validate=Length(max=500))


class StoreStatusOut(ma.Schema):
    prompt_id = ma.fields.String()
    previous_status = ma.fields.String()
    new_status = ma.fields.String()
    transition_timestamp = ma.fields.DateTime()
    reason = ma.fields.String()
    updated_by = ma.fields.String()


class StoreStatusListOut(ma.Schema):
    status = ma.fields.String()
    prompts = ma.fields.List(ma.fields.Nested(StorePromptOut))
    count = ma.fields.Integer(metadata={"description": "Those shown"})
    total = ma.fields.Integer()
    limit = ma.fields.Integer()
    offset = ma.fields.Integer()


class StoreTransitionOut(ma.Schema):
    from_status = ma.fields.String(attribute="from_state")
    to_status = ma.fields.String(attribute="to_state")
    reason = ma.fields.String()
    updated_by = ma.fields.String(attribute="changed_by")
    timestamp = ma.fields.DateTime(attribute="changed_at")


class StoreHistoryOut(ma.Schema):
    prompt_id = ma.fields.String()
    current_status = ma.fields.String()
    lifecycle_history = ma.fields.List(ma.fields.Nested(StoreTransitionOut), metadata={"description": "Newest first"})
    history_count = ma.fields.Integer(metadata={"description": "Those shown, 500 at most"})


class StoreCountsOut(ma.Schema):
    status_counts = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    total_prompts = ma.fields.Integer()


class StoreRulesOut(ma.Schema):
    valid_statuses = ma.fields.List(ma.fields.String())
    transition_rules = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.List(ma.fields.String()))


class StoreNewStatusQuery(ma.Schema):
    new_status = ma.fields.String(validate=ma.validate.OneOf(STATES))


class StoreNewStatusIn(StoreNewStatusQuery):
    """The same as in the query."""


class StoreMayOut(ma.Schema):
    valid = ma.fields.Boolean()
    current_status = ma.fields.String()
    requested_status = ma.fields.String()
    reason = ma.fields.String(allow_none=True, metadata={"description": "Why not"})


class StoreBulkStatusIn(StoreStatusIn):
    prompt_ids = ma.fields.List(ma.fields.String(), required=True, validate=Length(1, MOST))


class StoreStatusResultOut(ma.Schema):
    prompt_id = ma.fields.String()
    success = ma.fields.Boolean()
    previous_status = ma.fields.String(allow_none=True)
    new_status = ma.fields.String(allow_none=True)
    error = ma.fields.String(metadata={"description": "Only if it could not be changed"})


class StoreBulkStatusOut(ma.Schema):
    operation = ma.fields.String()
    total_requested = ma.fields.Integer()
    successful = ma.fields.Integer()
    failed = ma.fields.Integer()
    new_status = ma.fields.String()
    results = ma.fields.List(ma.fields.Nested(StoreStatusResultOut))


@blp.put("/prompts/<prompt_id>/lifecycle")
@blp.arguments(StoreStatusIn)
@blp.arguments(ActorQuery, location="query")
@blp.response(200, enveloped(StoreStatusOut))
def store_change_status(body: dict[str, Any], query: dict[str, Any], prompt_id: str) -> flask.Response:
    """Move a prompt on; what stands in the way is looked at before anything is written"""
    author = caller(Role.EDITOR)
    with reading() as session:
        seen = find(session, author, prompt_id, writing=True)
    with transaction() as session:
        changed = lifecycle.change_state(session, author, seen, Lifecycle(body["status"]), reason=body["reason"])
    data = {
        "prompt_id": changed.id,
        "previous_status": seen.lifecycle,
        "new_status": changed.lifecycle,
        "transition_timestamp": changed.updated_at,
        "reason": body["reason"],
        "updated_by": author.user_name,
    }
    return answer(StoreStatusOut().dump(data), "Lifecycle status updated successfully")


@blp.get("/prompts/lifecycle/<status>")
@blp.arguments(SliceQuery, location="query")
@blp.response(200, enveloped(StoreStatusListOut))
def store_list_status(query: dict[str, Any], status: str) -> flask.Response:
    """List the prompts in a state, newest first"""
    if status not in STATES:
        raise NotFound(f"no lifecycle status {status!r}; there are: {', '.join(STATES)}")
    with reading() as session:
        found = prompts.list_from(session, caller(), lifecycle=status, project=home(), **query)
        shown = rendered(session, caller(), found.data)
    data = {"status": status, "prompts": shown, "count": len(shown), "total": found.total, **query}
    return answer(data, "Prompts retrieved successfully")


@blp.get("/prompts/<prompt_id>/lifecycle/history")
@blp.response(200, enveloped(StoreHistoryOut))
def store_status_history(prompt_id: str) -> flask.Response:
    """List who moved a prompt on, when and why"""
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        changes = lifecycle.list_changes(session, prompt, limit=MOST, cursor=None).data
    data = {"prompt_id": str(prompt.id), "current_status": prompt.lifecycle, "history_count": len(changes)}
    shown = StoreTransitionOut().dump(changes, many=True)
    return answer({**data, "lifecycle_history": shown}, "Lifecycle history retrieved successfully")


@blp.get("/lifecycle/counts")
@blp.response(200, enveloped(StoreCountsOut))
def store_count_status() -> flask.Response:
    """How many prompts are in each state"""
    with reading() as session:
        counts = lifecycle.count_states(session, caller(), project=home())
    return answer({"status_counts": counts, "total_prompts": sum(counts.values())}, "Status counts retrieved")


@blp.get("/lifecycle/rules")
@blp.response(200, enveloped(StoreRulesOut))
def store_status_rules() -> flask.Response:
    """Which states can follow which"""
    caller()
    rules = {str(state): list(map(str, following)) for state, following in TRANSITIONS.items()}
    return answer({"valid_statuses": STATES, "transition_rules": rules}, "Transition rules retrieved")


@blp.post("/prompts/<prompt_id>/lifecycle/validate")
@blp.arguments(StoreNewStatusIn)
@blp.arguments(StoreNewStatusQuery, location="query")
@blp.response(200, enveloped(StoreMayOut))
def store_check_status(body: dict[str, Any], query: dict[str, Any], prompt_id: str) -> flask.Response:
    """Say whether a prompt can get a state now, and if not why; nothing is changed"""
    reader = caller()
    given = either(query, body)
    required(given, "new_status")
    reason = None
    with reading() as session:
        prompt = find(session, reader, prompt_id)
        try:
            if given["new_status"] != prompt.lifecycle:
                lifecycle.check_change(session, reader, prompt, Lifecycle(given["new_status"]))
        except PromptmillError as error:
            reason = error.detail
    data = {"valid": reason is None, "current_status": prompt.lifecycle, "requested_status": given["new_status"]}
    return answer({**data, "reason": reason}, "Transition validated")


@blp.post("/lifecycle/bulk")
@blp.arguments(StoreBulkStatusIn)
@blp.arguments(ActorQuery, location="query")
@blp.response(200, enveloped(StoreBulkStatusOut))
def store_change_statuses(body: dict[str, Any], query: dict[str, Any]) -> flask.Response:
    """Move up to 500 prompts on, each as far as it can be; a result for each"""
    author = caller(Role.EDITOR)
    state, reason = Lifecycle(body["status"]), body["reason"]
    names: dict[str, str] = {}
    missing: dict[str, str] = {}
    with transaction() as session:
        for prompt_id in body["prompt_ids"]:
            try:
                names[prompt_id] = find(session, author, prompt_id, writing=True).name
            except NotFound as error:
                missing[prompt_id] = error.detail
        found = lifecycle.change_states(session, author, list(names.values()), state, project=home(), reason=reason)
    done = dict(zip(names, found, strict=True))
    results = [_result(prompt_id, done.get(prompt_id), missing.get(prompt_id)) for prompt_id in body["prompt_ids"]]
    failed = sum(not result["success"] for result in results)
    data = {
        "operation": "bulk_lifecycle_update",
        "total_requested": len(results),
        "successful": len(results) - failed,
        "failed": failed,
        "new_status": str(state),
        "results": results,
    }
    return answer(data, f"{len(results) - failed} of {len(results)} prompts changed")


def _result(prompt_id: str, item: lifecycle.Transition | None, missing: str | None) -> dict[str, Any]:
    if item is None or item.error is not None:
        detail = missing if item is None or item.error is None else item.error.detail
        return {"prompt_id": prompt_id, "success": False, "error": detail}
    return {"prompt_id": prompt_id, "success": True, "previous_status": item.previous, "new_status": item.state}

"""/api/v1/prompts/{id}: new content, the versions, back to one of them, and a fork."""

from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.auth import caller
from app.compat.prompt_store import (
    Length,
    SliceQuery,
    answer,
    blueprint,
    either,
    enveloped,
    find,
    home,
    required,
    slice_of,
    sliced,
    wrapped,
)
from app.compat.prompt_store.prompts import (
    StorePromptOut,
    check_declared,
    locked,
    rendered,
    tags_field,
    variables_field,
)
from shared.db import reading, transaction
from shared.domain import pages, prompts, versions
from shared.domain.content import check_content
from shared.domain.drift import text_of
from shared.domain.names import VersionChoice, check_name
from shared.domain.pages import Numbered
from shared.domain.prompt_cards import cards_of
from shared.domain.tenants import Caller
from shared.errors import NotFound
from shared.models import LabelRequest, Prompt, Role, Version

blp = blueprint("versions", "new content, versions, rollback and fork.")


class StoreContentQuery(ma.Schema):
    content = ma.fields.String()
    change_summary = ma.fields.String(validate=Length(max=500))
    updated_by = ma.fields.String(validate=Length(1, 128))


class StoreContentIn(StoreContentQuery):
    """All of it, or as the originals a list of variables alone, with the rest in the query."""

    alone = "variables"
    variables = variables_field()


class StoreForkQuery(ma.Schema):
    new_name = ma.fields.String()
    created_by = ma.fields.String(validate=Length(1, 128))


class StoreForkChanges(ma.Schema):
    category = ma.fields.String(validate=Length(1, 64))
    description = ma.fields.String(validate=Length(max=2_000))
    tags = tags_field()
    content = ma.fields.String(metadata={"description": "Becomes version 2 of the fork"})
    variables = variables_field()


class StoreForkIn(StoreForkQuery, StoreForkChanges):
    """The changes beside the name, or in `changes`."""

    change_summary = ma.fields.String(validate=Length(max=500))
    changes = ma.fields.Nested(StoreForkChanges, allow_none=True)


class StoreRollbackQuery(ma.Schema):
    reason = ma.fields.String(validate=Length(max=500))


class StoreRollbackIn(StoreRollbackQuery):
    """The same as in the query."""


class StoreMovedOut(StorePromptOut):
    label_request_id = ma.fields.String(
        metadata={"description": "Only if `production` is moved with a second person's approval, who was asked"}
    )


class StoreVersionOut(ma.Schema):
    id = ma.fields.String()
    prompt_id = ma.fields.String()
    version = ma.fields.Integer()
    content = ma.fields.String()
    variables = ma.fields.List(ma.fields.String())
    change_summary = ma.fields.String()
    change_type = ma.fields.String(
        metadata={"description": "`create`, `fork` or `update`; a rollback makes no version"}
    )
    is_current = ma.fields.Boolean()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()


@blp.put("/prompts/<prompt_id>/content")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StoreContentIn)
@blp.arguments(StoreContentQuery, location="query")
@blp.response(200, enveloped(StoreMovedOut))
def store_put_content(body: dict[str, Any], query: dict[str, Any], prompt_id: str) -> flask.Response:
    """Give a prompt new content: a version, unless one says this already, which is then current again"""
    author = caller(Role.EDITOR)
    given = either(query, body)
    required(given, "content")
    content = check_content(template_source=given["content"])
    check_declared(content.variables, given.get("variables"))
    said = {"message": given.get("change_summary", ""), "created_by": given.get("updated_by")}

    def make(session: Session, _: Any) -> Any:
        prompt = locked(session, author, prompt_id)
        made = prompts.upsert(session, author, prompt.name, content, project=home(), set_active=True, **said)
        return _current(session, author, made.prompt, made.label_request)

    return wrapped(replay.create(author, given, 200, make), "Prompt content updated successfully")


@blp.get("/prompts/<prompt_id>/versions")
@blp.arguments(SliceQuery, location="query")
@blp.response(200, enveloped(slice_of(StoreVersionOut)))
def store_list_versions(query: dict[str, Any], prompt_id: str) -> flask.Response:
    """List a prompt's versions, newest first, the current one among them"""
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        total = prompt.last_version_number
        # Numbers have no gaps, so an offset is a number.
        before = pages.cursor_of(max(0, total + 1 - query["offset"]))
        page = prompts.list_versions(session, prompt, newest_first=True, limit=query["limit"], cursor=before)
        (card,) = cards_of(session, caller(), [prompt])
        items = [_version(version, prompt, card.version) for version in page.data]
    return answer(sliced(items, Numbered(items, total), query), "Prompt versions retrieved successfully")


@blp.post("/prompts/<prompt_id>/versions/<version>/rollback")
@blp.arguments(StoreRollbackIn)
@blp.arguments(StoreRollbackQuery, location="query")
@blp.response(200, enveloped(StoreMovedOut))
def store_roll_back(body: dict[str, Any], query: dict[str, Any], prompt_id: str, version: str) -> flask.Response:
    """Make an earlier version the current one"""
    author = caller(Role.EDITOR)
    reason = either(query, body).get("reason", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise NotFound(f"no version {version!r}")
    with transaction() as session:
        prompt = find(session, author, prompt_id, writing=True)
        wanted = prompts.get_version(session, prompt, VersionChoice(number=int(version)))
        done = versions.roll_back(session, author, prompt, wanted, message=reason)
        asks = done.label_request is not None
        said = f"Version {version} awaits approval" if asks else f"Prompt rolled back to version {version}"
        return answer(_current(session, author, prompt, done.label_request), said)


@blp.post("/prompts/<prompt_id>/fork")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StoreForkIn)
@blp.arguments(StoreForkQuery, location="query")
@blp.response(201, enveloped(StorePromptOut))
def store_fork(body: dict[str, Any], query: dict[str, Any], prompt_id: str) -> flask.Response:
    """Make a prompt of the current content of another one, which it remembers as its parent"""
    author = caller(Role.EDITOR)
    given = either(query, body)
    required(given, "new_name")
    name = check_name(given["new_name"], "/new_name")
    changes = {**{key: given[key] for key in StoreForkChanges().fields if key in given}, **(given.get("changes") or {})}
    content = check_content(template_source=changes["content"]) if "content" in changes else None
    said = {"created_by": given.get("created_by"), "message": given.get("change_summary", "")}

    def make(session: Session, _: Any) -> Any:
        source = find(session, author, prompt_id)
        (card,) = cards_of(session, author, [source])
        described = {key: changes[key] for key in ("category", "description", "tags") if key in changes}
        active: dict[str, Any] = {"set_active": content is None}
        made = versions.fork(session, author, source, card.version, name, **said, **described, **active)
        if content is not None:
            made = prompts.upsert(session, author, name, content, project=home(), set_active=True, **said)
        check_declared(made.version.variables, changes.get("variables"))
        return rendered(session, author, [made.prompt])[0]

    return wrapped(replay.create(author, given, 201, make), "Prompt forked successfully")


def _current(session: Session, author: Caller, prompt: Prompt, asked: LabelRequest | None) -> Any:
    """The prompt as it now is: as before when a second person has to approve, who was asked."""
    shown = rendered(session, author, [prompt])[0]
    return {**shown, "label_request_id": str(asked.id)} if asked else shown


def _version(version: Version, prompt: Prompt, current: Version) -> Any:
    kind = "update" if version.number > 1 else "fork" if version.forked_from_version_id else "create"
    return StoreVersionOut().dump(
        {
            **{name: getattr(version, name) for name in ("id", "variables", "created_by", "created_at")},
            "prompt_id": prompt.id,
            "version": version.number,
            "content": text_of(version),
            "change_summary": version.message,
            "change_type": kind,
            "is_current": version.id == current.id,
        }
    )

"""/api/v1/prompts: a prompt as one row with its current content."""

from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api.content import TrueOrFalse
from app.auth import caller
from app.compat.prompt_store import (
    ActorQuery,
    Length,
    SliceQuery,
    answer,
    blueprint,
    enveloped,
    find,
    home,
    slice_of,
    sliced,
    wrapped,
)
from shared.db import reading, transaction
from shared.domain import lifecycle, prompt_rows, prompts
from shared.domain.content import Content, check_content
from shared.domain.drift import text_of
from shared.domain.lifecycle import Lifecycle
from shared.domain.names import check_name
from shared.domain.prompt_cards import Card, cards_of
from shared.domain.tenants import Caller
from shared.errors import NotFound, field_error
from shared.models import Prompt, Role

blp = blueprint("prompts", "prompts, each as one row with its current content.")
DESCRIBED = ("name", "category", "description", "tags")


def tags_field(**kwargs: Any) -> ma.fields.List[str]:
    return ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50), **kwargs)


def variables_field(**kwargs: Any) -> ma.fields.List[str]:
    names = ma.fields.String(validate=Length(1, 128))
    return ma.fields.List(names, validate=Length(max=1_000), allow_none=True, **kwargs)


class StorePromptIn(ma.Schema):
    name = ma.fields.String(required=True, metadata={"description": "One of each in the project `default`"})
    category = ma.fields.String(required=True, validate=Length(1, 64))
    description = ma.fields.String(load_default="", validate=Length(max=2_000))
    content = ma.fields.String(required=True, metadata={"description": "A template; its whitespace is kept"})
    variables = variables_field(metadata={"description": "Of a template: each that the content uses"})
    tags = tags_field(load_default=list)
    is_template = TrueOrFalse(load_default=False)
    created_by = ma.fields.String(validate=Length(1, 128))


class StorePromptChange(ma.Schema):
    """What is left out stays."""

    name = ma.fields.String()
    category = ma.fields.String(validate=Length(1, 64))
    description = ma.fields.String(validate=Length(max=2_000))
    content = ma.fields.String(metadata={"description": "Becomes a version, unless one says this already"})
    variables = variables_field()
    tags = tags_field()
    is_active = TrueOrFalse(metadata={"description": "false deletes the prompt, as DELETE does"})
    lifecycle_status = ma.fields.String(validate=ma.validate.OneOf([state.value for state in Lifecycle]))


class StorePromptOut(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String()
    category = ma.fields.String()
    description = ma.fields.String()
    content = ma.fields.String(metadata={"description": "Of the version at `production`, else of the latest"})
    variables = ma.fields.List(ma.fields.String(), metadata={"description": "That the content uses"})
    tags = ma.fields.List(ma.fields.String())
    is_active = ma.fields.Boolean(metadata={"description": "Not deleted"})
    is_template = ma.fields.Boolean(metadata={"description": "The content uses variables"})
    lifecycle_status = ma.fields.String()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()
    version = ma.fields.Integer()
    parent_id = ma.fields.String(allow_none=True, metadata={"description": "What it was forked from"})
    performance_score = ma.fields.Float(
        allow_none=True,
        metadata={"description": "Mean feedback of its runs, else its newest evaluation's score; null: neither"},
    )
    usage_count = ma.fields.Integer(metadata={"description": "Executions"})


class StoreDeletedOut(ma.Schema):
    prompt_id = ma.fields.String()
    deleted = ma.fields.Boolean()


class StorePromptsQuery(SliceQuery):
    category = ma.fields.String()


@blp.post("/prompts")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StorePromptIn)
@blp.response(201, enveloped(StorePromptOut))
def store_create(body: dict[str, Any]) -> flask.Response:
    """Create a prompt; 409 when the name is taken"""
    author = caller(Role.EDITOR)
    fields, content = new_prompt(body)

    def make(session: Session, _: Any) -> Any:
        made = prompts.upsert(
            session, author, fields["name"], content, project=home(), **beside(fields), must_be_new=True
        )
        return rendered(session, author, [made.prompt])[0]

    return wrapped(replay.create(author, body, 201, make), "Prompt created successfully")


@blp.get("/prompts")
@blp.arguments(StorePromptsQuery, location="query")
@blp.response(200, enveloped(slice_of(StorePromptOut)))
def store_list(query: dict[str, Any]) -> flask.Response:
    """List prompts, newest first"""
    return listed(query, "Prompts retrieved successfully")


@blp.get("/prompts/category/<category>")
@blp.arguments(SliceQuery, location="query")
@blp.response(200, enveloped(slice_of(StorePromptOut)))
def store_list_category(query: dict[str, Any], category: str) -> flask.Response:
    """List the prompts of a category"""
    return listed({**query, "category": category}, "Prompts retrieved successfully")


@blp.get("/prompts/tags/<tag>")
@blp.arguments(SliceQuery, location="query")
@blp.response(200, enveloped(slice_of(StorePromptOut)))
def store_list_tag(query: dict[str, Any], tag: str) -> flask.Response:
    """List the prompts that have a tag"""
    return listed({**query, "tag": tag}, "Prompts retrieved successfully")


@blp.get("/prompts/<prompt_id>")
@blp.response(200, enveloped(StorePromptOut))
def store_read(prompt_id: str) -> flask.Response:
    """Read a prompt; a deleted one is a 404"""
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        return answer(rendered(session, caller(), [prompt])[0], "Prompt retrieved successfully")


@blp.put("/prompts/<prompt_id>")
@blp.arguments(StorePromptChange)
@blp.response(200, enveloped(StorePromptOut))
def store_update(body: dict[str, Any], prompt_id: str) -> flask.Response:
    """Change a prompt: all of what is given, or nothing

    Content makes a version, and the lifecycle goes the ways that it may go.
    """
    author = caller(Role.EDITOR)
    content = check_content(template_source=body["content"]) if "content" in body else None
    with transaction() as session:
        prompt = locked(session, author, prompt_id)
        described = {name: body[name] for name in DESCRIBED if name in body}
        prompt_rows.update_prompt(session, author, prompt, described)
        if content is not None:
            prompts.upsert(session, author, prompt.name, content, project=home(), set_active=True)
        (card,) = cards_of(session, author, [prompt])
        check_declared(card.version.variables, body.get("variables"))
        if "lifecycle_status" in body:
            lifecycle.change_state(session, author, prompt, Lifecycle(body["lifecycle_status"]))
        if body.get("is_active") is False:
            prompt_rows.delete_prompt(session, author, prompt)
        return answer(rendered(session, author, [prompt])[0], "Prompt updated successfully")


@blp.delete("/prompts/<prompt_id>")
@blp.arguments(ActorQuery, location="query")
@blp.response(200, enveloped(StoreDeletedOut))
def store_delete(query: dict[str, Any], prompt_id: str) -> flask.Response:
    """Delete a prompt; POST /v1/prompts/{id}/restore brings it back"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        prompt = locked(session, author, prompt_id)
        prompt_rows.delete_prompt(session, author, prompt)
        return answer({"prompt_id": str(prompt.id), "deleted": True}, "Prompt deleted successfully")


def new_prompt(body: Mapping[str, Any]) -> tuple[dict[str, Any], Content]:
    """The fields of a new prompt under our names, and its checked content."""
    fields = {name: body[name] for name in (*DESCRIBED, "created_by") if name in body}
    check_name(fields["name"])
    content = check_content(template_source=body["content"])
    variables = body.get("variables")
    check_declared(content.variables, (variables or []) if body["is_template"] else (variables or None))
    return {**fields, "set_active": True}, content


def beside(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "name"}


def check_declared(used: Sequence[str], declared: Sequence[str] | None) -> None:
    """Where variables are declared, every one that is used must be; None: nothing is declared."""
    missing = sorted(set(used) - set(declared)) if declared is not None else []
    if missing:
        raise field_error("/variables", f"the content uses {', '.join(missing)} as well; declare each that it uses")


def rendered(session: Session, reader: Caller, found: Sequence[Prompt]) -> list[Any]:
    return [_row(card) for card in cards_of(session, reader, found)]


def listed(query: dict[str, Any], message: str) -> flask.Response:
    with reading() as session:
        found = prompts.list_from(session, caller(), project=home(), **query)
        return answer(sliced(rendered(session, caller(), found.data), found, query), message)


def in_category(session: Session, category: str, name: str) -> Prompt:
    prompt = prompts.get_prompt(session, caller(), name, project=home())
    if prompt.category != category:
        raise NotFound(f"no prompt {name!r} in category {category!r}")
    return prompt


def locked(session: Session, author: Caller, prompt_id: str) -> Prompt:
    prompt = prompt_rows.lock_by_id(session, author, find(session, author, prompt_id, writing=True).id)
    if prompt.deleted_at is not None:  # since the statement before
        raise NotFound(f"no prompt {prompt_id}")
    return prompt


def _row(card: Card) -> Any:
    prompt, version = card.prompt, card.version
    described = ("name", "category", "description", "tags", "created_by", "created_at", "updated_at")
    return StorePromptOut().dump(
        {
            **{name: getattr(prompt, name) for name in described},
            "id": prompt.id,
            "content": text_of(version),
            "variables": version.variables,
            "is_active": prompt.deleted_at is None,
            "is_template": bool(version.variables),
            "lifecycle_status": prompt.lifecycle,
            "version": version.number,
            "parent_id": card.parent_id,
            "performance_score": card.score,
            "usage_count": card.runs,
        }
    )

"""Prompts of Prompt Studio. A prompt of theirs is one version row of ours: its `id` is our version's.

What the original made by copying is here what it says: a new version only for new content, and going back moves the
label `production`, which follows every write of a client (the newest row was what the original ran).
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import Digits, Flag
from app.api.content import Length
from app.auth import caller
from app.compat.prompt_studio import Identified, StudioPageQuery, envelope_of, enveloped, names, paged, studio_blueprint
from app.compat.prompt_studio.contents import FIELDS, TEXTS, converted, dollars_in, from_content, to_content
from shared.db import reading, transaction
from shared.domain import label_moves, pages, projects, prompt_rows, prompts, versions
from shared.domain.names import VersionChoice
from shared.domain.versions import Relative
from shared.errors import Conflict, NotFound, field_error
from shared.models import LabelRequest, Role, Version

blp = studio_blueprint("prompts", "Prompt Studio: prompts, each of which is one version.")
MAX_TEXT = 50_000
NOTHING_HERE: Mapping[str, str] = {
    "modules_config": "nothing runs modules here; write what they would do into the prompt",
    "signature_id": "there are no signatures, and never was a way to make one; variables_schema and response_schema of"
    " PUT /v1/prompts/{name} say what goes in and out",
    "prompt_schema_version": "is of the structured format, which is not read",
    "prompt_definition": "is not read; chat messages are taken by PUT /v1/prompts/{name}",
}


class StudioExample(ma.Schema):
    inputs = ma.fields.Dict(keys=ma.fields.String(), required=True)
    outputs = ma.fields.Dict(keys=ma.fields.String(), required=True)
    explanation = ma.fields.String(allow_none=True, validate=Length(max=10_000))


class StudioTexts(ma.Schema):
    system_prompt = ma.fields.String(allow_none=True, validate=Length(max=MAX_TEXT))
    user_prompt = ma.fields.String(allow_none=True, validate=Length(max=MAX_TEXT))
    few_shot_examples = ma.fields.List(
        ma.fields.Nested(StudioExample),
        allow_none=True,
        validate=Length(max=45),
        metadata={"description": "Each is a user message with the inputs as JSON and an assistant message likewise"},
    )
    modules_config = ma.fields.Raw(allow_none=True, metadata={"description": "null or empty: nothing runs modules"})
    signature_id = ma.fields.Raw(allow_none=True, metadata={"description": "null: there are no signatures"})
    prompt_format = ma.fields.String(validate=ma.validate.OneOf(["legacy"]))
    prompt_schema_version = ma.fields.Raw(allow_none=True)
    prompt_definition = ma.fields.Raw(allow_none=True)


class StudioPromptIn(StudioTexts):
    project_id = ma.fields.UUID(required=True)
    name = ma.fields.String(required=True, validate=Length(1, names.LONGEST))
    parent_version_id = ma.fields.UUID(allow_none=True, metadata={"description": "What it is made from: a fork"})
    change_description = ma.fields.String(allow_none=True, validate=Length(max=500))


class StudioPromptChange(StudioTexts):
    """What is not given stays as it is in the version that is named."""

    name = ma.fields.String(validate=Length(1, names.LONGEST))
    change_description = ma.fields.String(required=True, validate=Length(1, 500))


class StudioPromptOut(Identified):
    project_id = ma.fields.UUID()
    signature_id = ma.fields.Raw()
    version_number = ma.fields.Integer()
    name = ma.fields.String()
    system_prompt = ma.fields.String(allow_none=True)
    user_prompt = ma.fields.String(allow_none=True)
    few_shot_examples = ma.fields.List(ma.fields.Nested(StudioExample), allow_none=True)
    modules_config = ma.fields.List(ma.fields.Raw())
    parent_version_id = ma.fields.UUID(
        allow_none=True, metadata={"description": "The version before it; of version 1, what it was forked from"}
    )
    change_description = ma.fields.String()
    prompt_format = ma.fields.String(
        metadata={"description": "`structured` if the content has no place in the three fields above"}
    )
    prompt_definition = ma.fields.Raw(allow_none=True, metadata={"description": "Of a structured one: its messages"})
    variables = ma.fields.List(ma.fields.String())
    user_id = ma.fields.String()
    deleted = ma.fields.Boolean()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()


class StudioPromptsQuery(StudioPageQuery):
    include_deleted = Flag(load_default=False, metadata={"description": "Needs the role editor"})


class StudioAllPromptsQuery(StudioPromptsQuery):
    project_id = ma.fields.UUID(load_default=None)


class StudioHistoryQuery(StudioPageQuery):
    per_page = Digits(load_default=100, validate=ma.validate.Range(1, 100))


@blp.post("/prompts/create")
@blp.post("/prompts")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioPromptIn)
@blp.response(201, envelope_of(StudioPromptOut))
def create_prompt(body: dict[str, Any]) -> flask.Response:
    """Create a prompt whose name is free in its project

    `{x}` is a placeholder as it was in the original, and is kept as `{{ x }}`; `$x` and `<x>` are plain text.
    """
    author = caller(Role.EDITOR)
    texts, warnings = given_texts(body)
    content = to_content(texts)
    name = body["name"]

    def make(session: Session, _: Any) -> Any:
        parent = body.get("parent_version_id")
        made = prompts.upsert(
            session,
            author,
            names.ours(name),
            content,
            project=str(body["project_id"]),
            description=None if names.ours(name) == name else name,
            message=body.get("change_description") or "",
            set_active=True,
            must_be_new=True,
            forked_from=versions.get_relative(session, author, parent).version if parent else None,
        )
        return enveloped(_row(session, Relative(made.prompt, made.version)), warnings=warnings)

    return replay.create(author, flask.g.body, 201, make)


@blp.get("/prompts/list/<uuid:project_id>")
@blp.arguments(StudioPromptsQuery, location="query")
@blp.response(200, envelope_of(StudioPromptOut, many=True))
def list_prompts(query: dict[str, Any], project_id: uuid.UUID) -> flask.Response:
    """List every version of every prompt of a project, newest first"""
    return _list(project_id, **query)


@blp.get("/prompts")
@blp.fails(404)
@blp.arguments(StudioAllPromptsQuery, location="query")
@blp.response(200, envelope_of(StudioPromptOut, many=True))
def list_all_prompts(query: dict[str, Any]) -> flask.Response:
    """List every version of every prompt, newest first; of every project unless one is named"""
    return _list(query.pop("project_id"), **query)


@blp.get("/prompts/get/<uuid:prompt_id>")
@blp.response(200, envelope_of(StudioPromptOut))
def get_prompt(prompt_id: uuid.UUID) -> flask.Response:
    """Read a prompt, which is one version"""
    with reading() as session:
        return flask.jsonify(enveloped(_row(session, versions.get_relative(session, caller(), prompt_id))))


@blp.get("/prompts/history/<uuid:prompt_id>")
@blp.arguments(StudioHistoryQuery, location="query")
@blp.response(200, envelope_of(StudioPromptOut, many=True))
def get_history(query: dict[str, Any], prompt_id: uuid.UUID) -> flask.Response:
    """List all versions of the prompt that this one belongs to, newest first"""
    page, size = query["page"], query["per_page"]
    with reading() as session:
        prompt = versions.get_relative(session, caller(), prompt_id).prompt
        wanted = versions.of_prompt(prompt)
        found = pages.numbered(session, wanted, Version, page=page, per_page=size, by=Version.number.desc())
        rows = _rows(session, [Relative(prompt, version) for version in found.data])
    return paged(rows, page=page, per_page=size, total=found.total)


@blp.put("/prompts/update/<uuid:prompt_id>")
@blp.arguments(StudioPromptChange)
@blp.response(200, envelope_of(StudioPromptOut))
def update_prompt(body: dict[str, Any], prompt_id: uuid.UUID) -> flask.Response:
    """Change a version into the next one; content that the prompt had before is that version again"""
    author = caller(Role.EDITOR)
    texts, warnings = given_texts(body)
    if not texts and "name" not in body:
        raise field_error("", f"give at least one of name, {', '.join(FIELDS)}")
    with reading() as session:
        base = versions.get_relative(session, author, prompt_id, writing=True).version.content
    kept = from_content(base)
    if texts and kept is None:
        raise Conflict("its messages have no place in these fields; change it with PUT /v1/prompts/{name}")
    content = to_content({**(kept or {}), **texts}, base) if texts else None
    with transaction() as session:
        found = versions.get_relative(session, author, prompt_id, writing=True)
        label_moves.lock_prompt(session, found.prompt)
        if found.prompt.deleted_at is not None:  # while this waited for the lock
            raise NotFound(f"no version {prompt_id}")
        if "name" in body:
            name = body["name"]
            described = {} if names.ours(name) == name else {"description": name}
            prompt_rows.update_prompt(session, author, found.prompt, {"name": names.ours(name), **described})
        if content is None:  # a rename is no reason to run another version
            return flask.jsonify(enveloped(_row(session, found)))
        made = prompts.upsert(
            session,
            author,
            found.prompt.name,
            content,
            project=str(found.prompt.project_id),
            message=body["change_description"],
            set_active=True,
        )
        if not made.version_change:
            warnings.append(f"this content is version {made.version.number} already; no other row was made")
        warnings += _asked(made.label_request)
        return flask.jsonify(enveloped(_row(session, Relative(made.prompt, made.version)), warnings=warnings))


@blp.post("/prompts/revert/<uuid:prompt_id>/<int:version>")
@blp.response(200, envelope_of(StudioPromptOut))
def revert_prompt(prompt_id: uuid.UUID, version: int) -> flask.Response:
    """Make a version the current one again; the answer is that version, of which no copy is made"""
    author = caller(Role.EDITOR)
    if not 1 <= version <= 999_999_999:
        raise NotFound(f"no version {version}")
    with transaction() as session:
        prompt = versions.get_relative(session, author, prompt_id, writing=True).prompt
        prompts.require_full(prompt)
        target = prompts.get_version(session, prompt, VersionChoice(number=version))
        done = versions.roll_back(session, author, prompt, target, message=f"Reverted to version {version}")
        row = _row(session, Relative(prompt, target))
        return flask.jsonify(enveloped(row, warnings=_asked(done.label_request)))


def given_texts(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The content fields that were given, and what of them is not what the original would have made of it."""
    for name, why in NOTHING_HERE.items():
        if body.get(name) not in (None, [], {}):
            raise field_error(f"/{name}", why)
    texts = {name: body[name] for name in FIELDS if name in body}
    warnings = []
    for name in TEXTS:
        if texts.get(name):
            warnings += [
                f"{name}: ${word} is plain text here; write {{{{ {word} }}}}" for word in dollars_in(texts[name])
            ]
            texts[name] = converted(texts[name])
    return texts, warnings


def _list(project_id: uuid.UUID | None, *, page: int, per_page: int, include_deleted: bool) -> flask.Response:
    reader = caller(Role.EDITOR if include_deleted else Role.VIEWER)
    with reading() as session:
        if project_id is not None:
            projects.get_project(session, reader, str(project_id))
        wanted = versions.listed(reader, project_id, include_deleted=include_deleted)
        found = pages.numbered(session, wanted, Version, page=page, per_page=per_page)
        rows = _rows(session, versions.with_prompts(session, reader, found.data))
    return paged(rows, page=page, per_page=per_page, total=found.total)


def _row(session: Session, relative: Relative) -> Any:
    return _rows(session, [relative])[0]


def _rows(session: Session, relatives: Sequence[Relative]) -> list[Any]:
    parents = versions.parents_of(session, [relative.version for relative in relatives])
    fields = [_fields(relative, parents[relative.version.id]) for relative in relatives]
    return list(StudioPromptOut().dump(fields, many=True))


def _fields(relative: Relative, parent: uuid.UUID | None) -> dict[str, Any]:
    prompt, version = relative.prompt, relative.version
    texts = from_content(version.content)
    return {
        "id": version.id,
        "project_id": prompt.project_id,
        "signature_id": None,
        "version_number": version.number,
        "name": names.shown(prompt.name, prompt.description),
        **(texts or dict.fromkeys(FIELDS)),
        "modules_config": [],
        "parent_version_id": parent,
        "change_description": version.message,
        "prompt_format": "legacy" if texts else "structured",
        "prompt_definition": None if texts else {"messages": version.content["messages"]},
        "variables": version.variables,
        "user_id": version.created_by,
        "deleted": prompt.deleted_at is not None,
        "created_at": version.created_at,
        "updated_at": version.created_at,
    }


def _asked(request: LabelRequest | None) -> list[str]:
    if request is None:
        return []
    return [f"production moves when a second person approves it: POST /v1/label-requests/{request.id}/approve"]

"""/v1/prompts: prompts and their immutable versions."""

from collections.abc import Collection, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import cached, preconditions, replay
from app.api import (
    Flag,
    ListQuery,
    PageQuery,
    ProjectQuery,
    blueprint,
    page_of,
    project_field,
    render_page,
)
from app.api.content import ContentIn, Length, TrueOrFalse, VersionOut, take_content, version_choice
from app.api.labels import LabelOut, rendered
from app.auth import caller
from app.together import Together
from shared.db import reading
from shared.domain import labels, prompt_rows, prompts, versions
from shared.domain.changes import newest_of
from shared.domain.modes import MODES
from shared.domain.names import LATEST, PRODUCTION, VersionChoice, check_name
from shared.domain.new_versions import Added
from shared.domain.prompts import NamedContent
from shared.domain.tenants import Caller
from shared.errors import NotFound, field_error
from shared.models import Prompt, Role, Version

blp = blueprint("prompts", "Prompts and their immutable versions.")


class PromptFields(ma.Schema):
    """What is said of a prompt beside its content."""

    description = ma.fields.String(validate=Length(max=2000))
    owner_team = ma.fields.String(validate=Length(max=128))
    category = ma.fields.String(validate=Length(max=64))
    tags = ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50))
    created_by = ma.fields.String(validate=Length(1, 128))
    message = ma.fields.String(validate=Length(max=500), metadata={"description": "Commit message"})
    set_active = TrueOrFalse(metadata={"description": "Move the label `production` to this version"})
    project = project_field()


class VersionIn(ContentIn, PromptFields):
    """Content: `template_source` or `messages`. The same content never makes a second version."""


class PromptIn(VersionIn):
    name = ma.fields.String(required=True)


class PromptsQuery(ListQuery):
    mode = ma.fields.String(load_default=None, validate=ma.validate.OneOf(MODES))
    category = ma.fields.String(load_default=None)
    tag = ma.fields.String(load_default=None, metadata={"description": "One that the prompt has, written alike"})
    owner_team = ma.fields.String(load_default=None)
    lifecycle = ma.fields.String(load_default=None, validate=Length(1, 16))
    name_prefix = ma.fields.String(load_default=None, validate=Length(1, 128))
    include_deleted = Flag(load_default=False, metadata={"description": "Needs the role editor"})


class PromptSummary(ma.Schema):
    prompt_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    project_id = ma.fields.UUID()
    mode = ma.fields.String()
    description = ma.fields.String()
    category = ma.fields.String()
    tags = ma.fields.Raw()
    owner_team = ma.fields.String()
    lifecycle = ma.fields.String()
    latest_version_number = ma.fields.Integer(attribute="last_version_number")
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()
    deleted_at = ma.fields.DateTime(allow_none=True)
    deleted_by = ma.fields.String(allow_none=True)


class PlacedVersionOut(VersionOut):
    """With what PromptLedger's clients read."""

    checksum_hash = ma.fields.Function(lambda version: version.template_hash)
    status = ma.fields.String(
        metadata={"description": "`active`: at `production`; `deprecated`: was there before; `draft`: never was"}
    )


class PromptOut(PromptSummary):
    labels = ma.fields.List(ma.fields.Nested(LabelOut))
    active_version = ma.fields.Nested(PlacedVersionOut, allow_none=True, metadata={"description": "At `production`"})
    forked_from_version_id = ma.fields.UUID(
        allow_none=True, metadata={"description": "The version of another prompt that version 1 began as"}
    )


class UpsertedPrompt(ma.Schema):
    prompt_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()


class UpsertedVersion(ma.Schema):
    version_id = ma.fields.UUID(attribute="id")
    version_number = ma.fields.Integer(attribute="number")


class UpsertOut(ma.Schema):
    prompt = ma.fields.Nested(UpsertedPrompt)
    version = ma.fields.Nested(UpsertedVersion)
    version_change = ma.fields.Boolean(metadata={"description": "A new version was made"})
    label_request_id = ma.fields.UUID(
        attribute="label_request.id",
        metadata={"description": "Only if `production` is moved with a second person's approval, who was asked"},
    )


class VersionsQuery(PageQuery, ProjectQuery):
    """One schema: each of two would refuse the fields of the other."""

    order = ma.fields.String(load_default="asc", validate=ma.validate.OneOf(["asc", "desc"]))
    template_hash = ma.fields.String(load_default=None, validate=ma.validate.Regexp("^[0-9a-f]{64}$"))


@blp.put("/prompts/<name>")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(VersionIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, UpsertOut)
def put_prompt(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Create a prompt, or add a version unless one has this content

    Equal content over all history is the same version, whatever its number. The project may stand in the
    body or in the query.
    """
    if scope["project"] is not None and body.setdefault("project", scope["project"]) != scope["project"]:
        raise field_error("/project", "the query names another project")
    return _upsert(name, body, status=200)


@blp.post("/prompts")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(PromptIn)
@blp.response(201, UpsertOut)
def create_prompt(body: dict[str, Any]) -> flask.Response:
    """Create a prompt whose name is free"""
    return _upsert(body["name"], {key: value for key, value in body.items() if key != "name"}, status=201)


@blp.get("/prompts")
@blp.fails(403)
@blp.arguments(PromptsQuery, location="query")
@blp.response(200, page_of(PromptSummary))
def list_prompts(query: dict[str, Any]) -> flask.Response:
    """List prompts, newest first; of every project unless one is named"""
    reader = caller(Role.EDITOR if query["include_deleted"] else Role.VIEWER)
    with reading() as session:
        page = prompts.list_prompts(session, reader, **query)
        return flask.jsonify(render_page(PromptSummary(), page))


@blp.get("/prompts/<name>")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, PromptOut)
def get_prompt(scope: dict[str, Any], name: str) -> flask.Response:
    """Read a prompt with its labels and its active version"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, **scope)
        return preconditions.tagged(flask.jsonify(_prompt(session, prompt)), prompt_rows.etag_of(prompt))


@blp.get("/prompts/<name>/versions")
@blp.arguments(VersionsQuery, location="query")
@blp.response(200, page_of(PlacedVersionOut))
def list_versions(query: dict[str, Any], name: str) -> flask.Response:
    """List a prompt's versions, 1 first unless `order` is `desc`"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query.pop("project"))
        newest_first = query.pop("order") == "desc"
        page = prompts.list_versions(session, prompt, newest_first=newest_first, **query)
        return flask.jsonify({"data": _placed(session, prompt, page.data), "next_cursor": page.next_cursor})


@blp.get("/prompts/<name>/versions/<version>")
@blp.doc(parameters=[cached.IF_NONE_MATCH])
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, VersionOut)
@blp.alt_response(304, description="It is as the ETag in If-None-Match says")
def get_version(scope: dict[str, Any], name: str, version: str) -> flask.Response:
    """Read one version: by number, by label, or `latest`

    Remembered, and true as of less than a second ago; `Cache-Control: no-cache` reads it from the database. With
    If-None-Match it answers 304 when nothing has changed.
    """

    def read() -> cached.Made:
        with reading() as session:
            prompt = prompts.get_prompt(session, caller(), name, **scope)
            found = prompts.get_version(session, prompt, version_choice(version))
            return cached.Made(_VERSION.dump(found), version_subjects(prompt, version), prompt.project_id)

    return cached.answer(("version", scope["project"], name, version), read)


_UPSERTED, _VERSION = UpsertOut(), VersionOut()  # to make a schema takes longer than to use it


def version_subjects(prompt: Prompt, choice: str) -> tuple[str, ...]:
    """What changes when the chosen version of the prompt may be another, or is no longer to be read by its name."""
    subjects = prompt.id.hex, prompt.project_id.hex, prompt.workspace_id.hex
    return (*subjects, newest_of(prompt.id)) if choice == LATEST else subjects


def _upsert(name: str, body: dict[str, Any], *, status: int) -> flask.Response:
    author = caller(Role.EDITOR)
    check_name(name)
    content = take_content(body)
    if status == 200 and not replay.is_asked() and not body.keys() - _OF_A_VERSION:
        wanted = NamedContent(name, content, body.get("created_by") or author.user_name, body.get("message", ""))
        added = _new_versions.do((author, body.get("project")), wanted)
        if added is not None:
            prompt, version = added
            return flask.jsonify(
                _UPSERTED.dump({"prompt": prompt, "version": version, "version_change": version.is_new})
            )
    fields = {**body, "must_be_new": status == 201}

    def make(session: Session, _: Any) -> Any:
        return _UPSERTED.dump(prompts.upsert(session, author, name, content, **fields))

    return replay.create(author, [content.content_hash, fields], status, make)


def _add_versions(
    session: Session, whose: tuple[Caller, str | None], wanted: Sequence[NamedContent]
) -> list[tuple[Prompt, Added] | None]:
    author, project = whose
    return prompts.add_together(session, author, wanted, project=project)


_OF_A_VERSION = {"created_by", "message", "project"}  # what more than these are given is not only a version
_new_versions = Together(_add_versions)


def _prompt(session: Session, prompt: Prompt) -> Any:
    try:
        active: Version | None = prompts.get_version(session, prompt, VersionChoice(label=PRODUCTION))
    except NotFound:
        active = None
    return {
        **PromptSummary().dump(prompt),
        "labels": rendered(labels.list_labels(session, prompt)),
        "active_version": None if active is None else {**PlacedVersionOut().dump(active), "status": "active"},
        "forked_from_version_id": versions.origin_of(session, prompt),
    }


def _placed(session: Session, prompt: Prompt, found: Sequence[Version]) -> list[Any]:
    current, before = labels.placed_versions(session, prompt)
    rendered = PlacedVersionOut().dump(found, many=True)
    return [{**own, "status": _status(one.number, current, before)} for own, one in zip(rendered, found, strict=True)]


def _status(number: int, current: int | None, before: Collection[int]) -> str:
    if number == current:
        return "active"
    return "deprecated" if number in before else "draft"

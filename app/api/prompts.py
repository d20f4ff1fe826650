"""/v1/prompts: prompts and their immutable versions."""

from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import (
    ListQuery,
    PageQuery,
    ProjectQuery,
    Strict,
    WholeNumber,
    blueprint,
    page_of,
    project_field,
    render_page,
)
from app.api.labels import LabelOut, rendered
from app.auth import caller
from shared.db import reading
from shared.domain import labels, prompts, providers
from shared.domain.names import PRODUCTION, VersionChoice, check_name
from shared.errors import NotFound, field_error
from shared.models import Prompt, Role, Version

blp = blueprint("prompts", "Prompts and their immutable versions.")
Length = ma.validate.Length


class MessageTemplate(ma.Schema):
    role = ma.fields.String(required=True, validate=ma.validate.OneOf(prompts.ROLES))
    content = ma.fields.String(required=True)


class Params(ma.Schema):
    """Settings of a call. What a model does not take is refused with its name, never dropped."""

    temperature = Strict(validate=ma.validate.Range(0, 2))
    top_p = Strict(validate=ma.validate.Range(0, 1, min_inclusive=False))
    top_k = WholeNumber(validate=ma.validate.Range(1, 100_000))
    max_new_tokens = WholeNumber(validate=ma.validate.Range(1, 1_000_000))
    repetition_penalty = Strict(validate=ma.validate.Range(0, 10, min_inclusive=False))
    seed = WholeNumber(validate=ma.validate.Range(-(2**31), 2**31 - 1))
    stop = ma.fields.List(ma.fields.String(validate=Length(1, 200)), validate=Length(1, 4))


class ModelSettings(ma.Schema):
    provider = ma.fields.String(required=True, validate=ma.validate.OneOf(list(providers.PROVIDERS)))
    model_name = ma.fields.String(required=True, validate=Length(1, 128))
    params = ma.fields.Nested(Params, load_default=dict)


class TrueOrFalse(ma.fields.Boolean):
    """A boolean that is written as one: no "true", no 1."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class VersionIn(ma.Schema):
    """Content: `template_source` or `messages`. The same content never makes a second version."""

    template_source = ma.fields.String(metadata={"description": "A strict subset of Jinja2"})
    messages = ma.fields.List(ma.fields.Nested(MessageTemplate), validate=Length(1, 100))
    model = ma.fields.Nested(ModelSettings, metadata={"description": "Default model settings of the version"})
    description = ma.fields.String(validate=Length(max=2000))
    owner_team = ma.fields.String(validate=Length(max=128))
    category = ma.fields.String(validate=Length(max=64))
    tags = ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50))
    created_by = ma.fields.String(validate=Length(1, 128))
    message = ma.fields.String(validate=Length(max=500), metadata={"description": "Commit message"})
    set_active = TrueOrFalse(metadata={"description": "Move the label `production` to this version"})
    project = project_field()


class PromptIn(VersionIn):
    name = ma.fields.String(required=True)


class VersionOut(ma.Schema):
    version_id = ma.fields.UUID(attribute="id")
    version_number = ma.fields.Integer(attribute="number")
    template_source = ma.fields.Function(lambda version: version.content.get("template_source"))
    messages = ma.fields.Function(lambda version: version.content.get("messages"))
    model = ma.fields.Function(lambda version: version.content.get("model"))
    variables = ma.fields.Raw()
    template_hash = ma.fields.String()
    content_hash = ma.fields.String()
    message = ma.fields.String()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()


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


class PromptOut(PromptSummary):
    labels = ma.fields.List(ma.fields.Nested(LabelOut))
    active_version = ma.fields.Nested(VersionOut, allow_none=True, metadata={"description": "At `production`"})


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
@blp.arguments(ListQuery, location="query")
@blp.response(200, page_of(PromptSummary))
def list_prompts(query: dict[str, Any]) -> flask.Response:
    """List prompts, newest first; of every project unless one is named"""
    with reading() as session:
        page = prompts.list_prompts(session, caller(), **query)
        return flask.jsonify(render_page(PromptSummary(), page))


@blp.get("/prompts/<name>")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, PromptOut)
def get_prompt(scope: dict[str, Any], name: str) -> flask.Response:
    """Read a prompt with its labels and its active version"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, **scope)
        return flask.jsonify(_prompt(session, prompt))


@blp.get("/prompts/<name>/versions")
@blp.arguments(VersionsQuery, location="query")
@blp.response(200, page_of(VersionOut))
def list_versions(query: dict[str, Any], name: str) -> flask.Response:
    """List a prompt's versions, 1 first"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query.pop("project"))
        return flask.jsonify(render_page(VersionOut(), prompts.list_versions(session, prompt, **query)))


@blp.get("/prompts/<name>/versions/<version>")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, VersionOut)
def get_version(scope: dict[str, Any], name: str, version: str) -> flask.Response:
    """Read one version: by number, by label, or `latest`"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, **scope)
        return flask.jsonify(VersionOut().dump(prompts.get_version(session, prompt, _choice(version))))


def _upsert(name: str, body: dict[str, Any], *, status: int) -> flask.Response:
    author = caller(Role.EDITOR)
    check_name(name)
    content = prompts.check_content(
        template_source=body.pop("template_source", None),
        messages=body.pop("messages", None),
        model=_checked_model(body.pop("model", None)),
    )
    fields = {**body, "must_be_new": status == 201}

    def make(session: Session, _: Any) -> Any:
        return UpsertOut().dump(prompts.upsert(session, author, name, content, **fields))

    return replay.create(author, [content.content_hash, fields], status, make)


def _checked_model(model: dict[str, Any] | None) -> dict[str, Any] | None:
    if model is None:
        return None
    with reading() as session:
        quote = providers.quote(session, model["provider"], model["model_name"])
    providers.check_params(quote, model["params"], "/model/params")
    return model


def _choice(version: str) -> VersionChoice:
    number = version.removeprefix("v")
    if number.isascii() and number.isdigit():
        if len(number) > 9:
            raise NotFound("no version has so large a number")
        return VersionChoice(number=int(number))
    return VersionChoice(label=version)


def _prompt(session: Session, prompt: Prompt) -> Any:
    try:
        active: Version | None = prompts.get_version(session, prompt, VersionChoice(label=PRODUCTION))
    except NotFound:
        active = None
    return {
        **PromptSummary().dump(prompt),
        "labels": rendered(labels.list_labels(session, prompt)),
        "active_version": None if active is None else VersionOut().dump(active),
    }

"""/v1/prompts/{name}: what is done with whole versions. Diff, rollback, fork, and the lineage of forks."""

from dataclasses import asdict
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import PageQuery, ProjectQuery, blueprint
from app.api.content import Length, TrueOrFalse, version_choice
from app.api.prompts import PromptFields, UpsertedPrompt, UpsertedVersion
from app.auth import caller
from shared.db import reading
from shared.domain import prompts, versions
from shared.domain.diffs import diff
from shared.domain.names import LATEST, VersionChoice, check_name
from shared.domain.versions import Relative
from shared.errors import NotFound
from shared.models import Prompt, Role, Version

blp = blueprint("versions", "What is done with whole versions: diff, rollback, fork.")


class VersionName(ma.fields.Field[VersionChoice]):
    """A version by number (3), label, `v3` or `latest`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> VersionChoice:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 999_999_999:
            return VersionChoice(number=value)
        if isinstance(value, str) and value:
            return version_choice(value)
        raise ma.ValidationError("must be a version's number, a label or `latest`")


def version_field(**kwargs: Any) -> VersionName:
    return VersionName(metadata={"description": "A number, a label, `v3` or `latest`"}, **kwargs)


# `from` is a word of Python's, so these fields cannot be written in a class.
DiffQuery = ProjectQuery.from_dict(
    {
        "from": ma.fields.String(
            load_default=None,
            validate=Length(1),
            metadata={"description": "A number, a label, `v3` or `latest`; the version before `to` if left out"},
        ),
        "to": ma.fields.String(
            load_default=LATEST, validate=Length(1), metadata={"description": "Likewise; `latest` if left out"}
        ),
    },
    name="DiffQuery",
)


class DifferenceOut(ma.Schema):
    field = ma.fields.String(metadata={"description": "The field of the content"})
    key = ma.fields.Raw(
        allow_none=True,
        metadata={"description": "Which message (index), tool (name) or setting; null: all of the field"},
    )
    change = ma.fields.String(metadata={"description": "added, removed or changed"})
    before = ma.fields.Raw(allow_none=True)
    after = ma.fields.Raw(allow_none=True)


class NamesOut(ma.Schema):
    added = ma.fields.List(ma.fields.String())
    removed = ma.fields.List(ma.fields.String())


class StructuredOut(ma.Schema):
    changes = ma.fields.List(ma.fields.Nested(DifferenceOut))
    variables = ma.fields.Nested(NamesOut)


class DiffOut(ma.Schema):
    from_version_number = ma.fields.Integer(
        allow_none=True, metadata={"description": "null: the other one is the first, all of which is new"}
    )
    to_version_number = ma.fields.Integer()
    identical = ma.fields.Boolean()
    unified = ma.fields.String(metadata={"description": "Text of `diff -u` over the content as people read it"})
    structured = ma.fields.Nested(StructuredOut)


class RollbackIn(ma.Schema):
    to = version_field(required=True)
    message = ma.fields.String(validate=Length(max=500), metadata={"description": "Why; kept in the event"})
    set_active = TrueOrFalse(metadata={"description": "true if left out; false only finds the version"})


class RollbackOut(ma.Schema):
    prompt = ma.fields.Nested(UpsertedPrompt)
    version = ma.fields.Nested(UpsertedVersion)
    from_version_number = ma.fields.Integer(
        allow_none=True, metadata={"description": "Where `production` pointed before; null: nowhere"}
    )
    moved = ma.fields.Boolean(metadata={"description": "`production` points elsewhere than before"})
    label_request_id = ma.fields.UUID(
        attribute="label_request.id",
        metadata={"description": "Only if `production` is moved with a second person's approval, who was asked"},
    )


class ForkIn(PromptFields):
    name = ma.fields.String(required=True)
    version = version_field()


class OriginOut(ma.Schema):
    prompt_id = ma.fields.UUID(attribute="prompt.id")
    prompt_name = ma.fields.String(attribute="prompt.name")
    project_id = ma.fields.UUID(attribute="prompt.project_id")
    version_id = ma.fields.UUID(attribute="version.id")
    version_number = ma.fields.Integer(attribute="version.number")
    created_at = ma.fields.DateTime(attribute="version.created_at")


class ForkedOut(OriginOut):
    from_version_number = ma.fields.Integer(metadata={"description": "Of this prompt: what it was forked from"})


class ForkOut(ma.Schema):
    prompt = ma.fields.Nested(UpsertedPrompt)
    version = ma.fields.Nested(UpsertedVersion)
    forked_from = ma.fields.Nested(OriginOut)


class LineageQuery(PageQuery, ProjectQuery):
    """One schema: each of two would refuse the fields of the other."""


class LineageOut(ma.Schema):
    ancestors = ma.fields.List(
        ma.fields.Nested(OriginOut), metadata={"description": "Nearest first, as far as you may see"}
    )
    forks = ma.fields.List(ma.fields.Nested(ForkedOut), metadata={"description": "Made from any version, newest first"})
    next_cursor = ma.fields.String(allow_none=True, metadata={"description": "Of the forks"})


@blp.get("/prompts/<name>/diff")
@blp.arguments(DiffQuery, location="query")
@blp.response(200, DiffOut)
def diff_versions(query: dict[str, Any], name: str) -> flask.Response:
    """Compare two versions: the latest with the one before it, unless others are named"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query["project"])
        after = _version(session, prompt, version_choice(query["to"]), "to")
        before: Version | None = None
        if query["from"] is not None:
            before = _version(session, prompt, version_choice(query["from"]), "from")
        elif after.number > 1:
            before = prompts.get_version(session, prompt, VersionChoice(number=after.number - 1))
    names = (f"{name} v{before.number}" if before else "/dev/null", f"{name} v{after.number}")
    found = diff(before.content if before else None, after.content, names=names)
    return flask.jsonify(
        {
            "from_version_number": before and before.number,
            "to_version_number": after.number,
            "identical": not found.changes,
            "unified": found.unified,
            "structured": {
                "changes": [asdict(change) for change in found.changes],
                "variables": {"added": found.variables_added, "removed": found.variables_removed},
            },
        }
    )


@blp.post("/prompts/<name>/rollback")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(RollbackIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, RollbackOut)
def roll_back(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Point `production` at an earlier version

    Older content is the older version, so nothing is copied and no number is taken.
    """
    author = caller(Role.EDITOR)
    options = {key: value for key, value in body.items() if key != "to"}

    def make(session: Session, _: Any) -> Any:
        prompt = prompts.get_prompt(session, author, name, **scope, writing=True)
        version = _version(session, prompt, body["to"], "to")
        done = versions.roll_back(session, author, prompt, version, **options)
        return RollbackOut().dump(
            {
                "prompt": prompt,
                "version": version,
                "from_version_number": done.from_number,
                "moved": done.moved,
                **({"label_request": done.label_request} if done.label_request else {}),
            }
        )

    return replay.create(author, [asdict(body["to"]), options], 200, make)


@blp.post("/prompts/<name>/fork")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(ForkIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(201, ForkOut)
def fork(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Make a prompt of a version: the latest unless one is named

    What is not given of the new prompt's description, owner, category and tags is that of its source.
    """
    author = caller(Role.EDITOR)
    choice = body.pop("version", VersionChoice(label=LATEST))
    fields = {key: value for key, value in body.items() if key != "name"}
    check_name(body["name"])

    def make(session: Session, _: Any) -> Any:
        source = prompts.get_prompt(session, author, name, **scope)
        version = _version(session, source, choice, "version")
        made = versions.fork(session, author, source, version, body["name"], **fields)
        return ForkOut().dump(
            {"prompt": made.prompt, "version": made.version, "forked_from": Relative(source, version)}
        )

    return replay.create(author, [asdict(choice), body], 201, make)


@blp.get("/prompts/<name>/lineage")
@blp.arguments(LineageQuery, location="query")
@blp.response(200, LineageOut)
def get_lineage(query: dict[str, Any], name: str) -> flask.Response:
    """Read what a prompt was forked from, and what was forked from it"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query.pop("project"))
        forks, next_cursor = versions.forks_of(session, caller(), prompt, **query)
        rendered = ForkedOut().dump([fork for fork, _ in forks], many=True)
        return flask.jsonify(
            {
                "ancestors": OriginOut().dump(versions.ancestors_of(session, caller(), prompt), many=True),
                "forks": [
                    {**own, "from_version_number": number} for own, (_, number) in zip(rendered, forks, strict=True)
                ],
                "next_cursor": next_cursor,
            }
        )


def _version(session: Session, prompt: Prompt, choice: VersionChoice, field: str) -> Version:
    """The version, or a 404 that names the field that asked for it."""
    try:
        return prompts.get_version(session, prompt, choice)
    except NotFound as error:
        raise NotFound(error.detail, fields=[field]) from error

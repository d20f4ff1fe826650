"""What a version says, as the API takes and shows it; and /render: what a model would be sent, without sending it."""

from typing import Any

import flask
import marshmallow as ma

from app.api import ProjectQuery, Strict, WholeNumber, blueprint
from app.auth import caller
from shared.db import reading
from shared.domain import executions, providers
from shared.domain.content import PLACEHOLDER, ROLES, Content, check_content, render_messages
from shared.domain.executions import RunRequest
from shared.domain.names import VersionChoice
from shared.errors import NotFound
from shared.hashing import hash_of

blp = blueprint("content", "What a model would be sent, without sending it.")
Length = ma.validate.Length


class TrueOrFalse(ma.fields.Boolean):
    """A boolean that is written as one: no "true", no 1."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class MessageTemplate(ma.Schema):
    """A message (`role` and `content`), or a place for those that a variable gives (`type` and `name`)."""

    role = ma.fields.String(validate=ma.validate.OneOf(ROLES))
    content = ma.fields.String()
    type = ma.fields.String(validate=ma.validate.OneOf([PLACEHOLDER]))
    name = ma.fields.String(metadata={"description": "Of the variable: a list of {role, content}"})
    optional = TrueOrFalse(metadata={"description": "The variable may be missing"})


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


class ContentIn(ma.Schema):
    template_source = ma.fields.String(metadata={"description": "A strict subset of Jinja2"})
    messages = ma.fields.List(ma.fields.Nested(MessageTemplate), validate=Length(1, 100))
    model = ma.fields.Nested(ModelSettings, metadata={"description": "Default model settings of the version"})
    tools = ma.fields.List(
        ma.fields.Dict(keys=ma.fields.String()),
        metadata={"description": "Function tools: {type: function, function: {name, description, parameters, strict}}"},
    )
    response_schema = ma.fields.Dict(
        keys=ma.fields.String(), metadata={"description": "JSON Schema that the answer is to fit"}
    )
    variables_schema = ma.fields.Dict(
        keys=ma.fields.String(),
        metadata={"description": "JSON Schema (2020-12) of the variables; what does not fit is never queued"},
    )


class VersionOut(ma.Schema):
    version_id = ma.fields.UUID(attribute="id")
    version_number = ma.fields.Integer(attribute="number")
    template_source = ma.fields.Function(lambda version: version.content.get("template_source"))
    messages = ma.fields.Function(lambda version: version.content.get("messages"))
    model = ma.fields.Function(lambda version: version.content.get("model"))
    tools = ma.fields.Function(lambda version: version.content.get("tools"))
    response_schema = ma.fields.Function(lambda version: version.content.get("response_schema"))
    variables_schema = ma.fields.Function(lambda version: version.content.get("variables_schema"))
    variables = ma.fields.Raw()
    template_hash = ma.fields.String()
    content_hash = ma.fields.String()
    message = ma.fields.String()
    forked_from_version_id = ma.fields.UUID(allow_none=True)
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()


class RenderIn(ma.Schema):
    version_number = WholeNumber(allow_none=True, validate=ma.validate.Range(1, 999_999_999))
    label = ma.fields.String(allow_none=True, metadata={"description": "`production` when neither is given"})
    variables = ma.fields.Dict(keys=ma.fields.String(), load_default=dict)


class DraftIn(ContentIn):
    variables = ma.fields.Dict(keys=ma.fields.String(), load_default=dict)


class DraftOut(ma.Schema):
    """What would be sent, and the hashes that tell two of them apart."""

    messages = ma.fields.Raw(metadata={"description": "Rendered: [{role, content}]"})
    tools = ma.fields.Raw(metadata={"description": "null: none"})
    response_schema = ma.fields.Raw(metadata={"description": "null: none"})
    model = ma.fields.Raw(metadata={"description": "The version's own settings; null: none"})
    variables = ma.fields.List(ma.fields.String(), metadata={"description": "Names that the content uses"})
    template_hash = ma.fields.String()
    content_hash = ma.fields.String()
    rendered_hash = ma.fields.String(metadata={"description": "SHA-256 of the canonical JSON of `messages`"})


class RenderedOut(DraftOut):
    prompt_id = ma.fields.UUID()
    prompt_name = ma.fields.String()
    version_id = ma.fields.UUID()
    version_number = ma.fields.Integer()


@blp.post("/prompts/<name>/render")
@blp.fails(never=(403, 409))
@blp.arguments(RenderIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, RenderedOut)
def render_version(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Render a version as a run would; nothing is executed or stored"""
    variables = body.pop("variables")
    with reading() as session:
        prompt, version = executions.resolve(session, caller(), RunRequest(prompt_name=name, **scope, **body))
    stored = Content(version.content, version.template_hash, version.content_hash, tuple(version.variables))
    return flask.jsonify(
        {
            "prompt_id": str(prompt.id),
            "prompt_name": prompt.name,
            "version_id": str(version.id),
            "version_number": version.number,
            **_rendered(stored, variables),
        }
    )


@blp.post("/render")
@blp.fails(never=(403, 409))
@blp.arguments(DraftIn)
@blp.response(200, DraftOut)
def render_draft(body: dict[str, Any]) -> flask.Response:
    """Check and render content that is not stored; nothing is executed or stored"""
    caller()
    variables = body.pop("variables")
    return flask.jsonify(_rendered(take_content(body), variables))


def take_content(body: dict[str, Any]) -> Content:
    """The checked content of a request; its fields are taken out of the body."""
    given = {name: body.pop(name) for name in CONTENT_FIELDS if name in body}
    content = check_content(**given)
    model = given.get("model")
    if model is not None:
        with reading() as session:
            quote = providers.quote(session, model["provider"], model["model_name"])
        providers.check_params(quote, model["params"], "/model/params")
    return content


def version_choice(text: str) -> VersionChoice:
    """A version as addresses and queries name it: `3`, `v3`, a label or `latest`."""
    number = text.removeprefix("v")
    if number.isascii() and number.isdigit():
        if len(number) > 9:
            raise NotFound("no version has so large a number")
        return VersionChoice(number=int(number))
    return VersionChoice(label=text)


CONTENT_FIELDS = tuple(ContentIn().fields)


def _rendered(content: Content, variables: dict[str, Any]) -> dict[str, Any]:
    messages = render_messages(content.body, variables)
    return {
        "messages": messages,
        **{name: content.body.get(name) for name in ("tools", "response_schema", "model")},
        "variables": list(content.variables),
        "template_hash": content.template_hash,
        "content_hash": content.content_hash,
        "rendered_hash": hash_of(messages),
    }

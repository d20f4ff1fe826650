"""Drafts of Prompt Studio: rendered and rewritten, never stored."""

from typing import Any

import flask
import marshmallow as ma

from app.api.content import Length
from app.auth import caller
from app.compat.prompt_studio import envelope_of, enveloped, studio_blueprint
from app.compat.prompt_studio.contents import TEXTS, converted, to_content
from app.compat.prompt_studio.prompts import MAX_TEXT, StudioTexts, given_texts
from shared.domain.content import render_messages
from shared.errors import field_error

blp = studio_blueprint("drafts", "Prompt Studio: prompts that are not stored.")


class StudioPreviewIn(StudioTexts):
    project_id = ma.fields.UUID(allow_none=True)
    variables = ma.fields.Dict(keys=ma.fields.String())
    inputs = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": "Another word for variables"})


class StudioPreviewOut(ma.Schema):
    messages = ma.fields.Raw(metadata={"description": "What a model would be sent"})
    variables = ma.fields.List(ma.fields.String())


class StudioConvertIn(ma.Schema):
    project_id = ma.fields.UUID(allow_none=True)
    system_prompt = ma.fields.String(allow_none=True, validate=Length(max=MAX_TEXT))
    user_prompt = ma.fields.String(allow_none=True, validate=Length(max=MAX_TEXT))


class StudioConvertedOut(ma.Schema):
    system_prompt = ma.fields.String(allow_none=True)
    user_prompt = ma.fields.String(allow_none=True)
    variables = ma.fields.List(ma.fields.String())


@blp.post("/prompts/preview")
@blp.arguments(StudioPreviewIn)
@blp.response(200, envelope_of(StudioPreviewOut))
def preview(body: dict[str, Any]) -> flask.Response:
    """Render a draft; nothing is executed or stored"""
    caller()
    if "variables" in body and "inputs" in body:
        raise field_error("/inputs", "is another word for variables; give one of them")
    texts, warnings = given_texts(body)
    content = to_content(texts)
    messages = render_messages(content.body, body.get("variables", body.get("inputs", {})))
    return flask.jsonify(enveloped({"messages": messages, "variables": list(content.variables)}, warnings=warnings))


@blp.post("/prompts/convert")
@blp.arguments(StudioConvertIn)
@blp.response(200, envelope_of(StudioConvertedOut))
def convert(body: dict[str, Any]) -> flask.Response:
    """Write `{x}` and `$x` of a draft as `{{ x }}`, and name its variables; nothing is stored"""
    caller()
    texts = {name: converted(body[name], dollars=True) for name in TEXTS if body.get(name)}
    content = to_content(texts)
    found = {name: texts.get(name) for name in TEXTS}
    return flask.jsonify(enveloped({**found, "variables": list(content.variables)}))

"""/v1/prompts/{name}/suggestions and /v1/suggestions: what is likely to go wrong with a text, and why."""

from typing import Any

import flask
import marshmallow as ma

from app.api import ProjectQuery, blueprint
from app.api.content import Length, MessageTemplate, ModelSettings
from app.auth import caller
from shared.db import reading
from shared.domain import prompts, suggestions
from shared.domain.content import check_content
from shared.domain.names import LATEST, parse_reference
from shared.domain.suggestions import RULES, Suggestion

blp = blueprint("suggestions", "Rules that look at the text of a prompt: what is likely to go wrong, and why.")


class SuggestionsQuery(ProjectQuery):
    version = ma.fields.String(
        load_default=LATEST,
        validate=Length(1, 36),
        metadata={"description": "Number, label or `latest`, which it is if left out"},
    )


class SuggestIn(ma.Schema):
    """A text that is not stored: `template_source` or `messages`."""

    template_source = ma.fields.String()
    messages = ma.fields.List(ma.fields.Nested(MessageTemplate), validate=Length(1, 100))
    model = ma.fields.Nested(ModelSettings, metadata={"description": "For whether the prompt fits into it"})
    variables = ma.fields.List(
        ma.fields.String(validate=Length(1, 128)),
        validate=Length(max=1_000),
        metadata={"description": "The names that will be given; without them none is called undeclared or unused"},
    )
    response_schema = ma.fields.Dict(metadata={"description": "A JSON Schema that the answer will be held to"})


class WhereOut(ma.Schema):
    pointer = ma.fields.String(metadata={"description": "JSON pointer into the content"})
    line = ma.fields.Integer(metadata={"description": "Of the text there, from 1"})


class SuggestionOut(ma.Schema):
    rule = ma.fields.String(metadata={"description": f"One of {', '.join(RULES)}"})
    severity = ma.fields.String(metadata={"description": "`error`, `warning` or `info`"})
    where = ma.fields.Nested(WhereOut)
    reason = ma.fields.String()
    example = ma.fields.String(metadata={"description": "How it could be put right"})


class SuggestionsOut(ma.Schema):
    suggestions = ma.fields.List(ma.fields.Nested(SuggestionOut), metadata={"description": "The gravest first"})
    counts = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    rules_checked = ma.fields.Integer()


class VersionSuggestionsOut(SuggestionsOut):
    prompt_name = ma.fields.String()
    version_number = ma.fields.Integer()


@blp.get("/prompts/<name>/suggestions")
@blp.arguments(SuggestionsQuery, location="query")
@blp.response(200, VersionSuggestionsOut)
def get_suggestions(query: dict[str, Any], name: str) -> flask.Response:
    """Look at the text of a version: what is likely to go wrong, and why"""
    wanted = query["version"]
    number = wanted.isascii() and wanted.isdigit()
    _, choice = parse_reference(f"{name}@{'v' if number else ''}{wanted}", "?version")
    assert choice is not None
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query["project"])
        version = prompts.get_version(session, prompt, choice)
        found = suggestions.suggestions_for(session, version)
    return flask.jsonify({"prompt_name": prompt.name, "version_number": version.number, **_found(found)})


@blp.post("/suggestions")
@blp.fails(never=(403, 409))
@blp.arguments(SuggestIn)
@blp.response(200, SuggestionsOut)
def suggest(body: dict[str, Any]) -> flask.Response:
    """Look at a text that is not stored, and store nothing"""
    caller()
    content = check_content(
        template_source=body.get("template_source"), messages=body.get("messages"), model=body.get("model")
    )
    with reading() as session:
        draft = suggestions.draft_of(
            session, content.body, declared=body.get("variables"), schema=body.get("response_schema")
        )
    return flask.jsonify(_found(suggestions.suggest(draft)))


def _found(found: list[Suggestion]) -> dict[str, Any]:
    return {
        "suggestions": [
            {
                "rule": one.rule,
                "severity": one.severity,
                "where": {"pointer": one.pointer, "line": one.line},
                "reason": one.reason,
                "example": one.example,
            }
            for one in found
        ],
        "counts": suggestions.counts(found),
        "rules_checked": len(RULES),
    }

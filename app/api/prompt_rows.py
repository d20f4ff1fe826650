"""/v1/prompts/{name}: the prompt's own row, changed, renamed, deleted and restored."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import preconditions
from app.api import Flag, ProjectQuery, blueprint
from app.api.content import Length
from app.api.prompts import PromptSummary
from app.auth import caller
from shared.db import transaction
from shared.domain import prompt_rows
from shared.domain.tenants import Caller
from shared.models import Prompt, Role

blp = blueprint("prompt_rows", "What a prompt is called and described by, and whether it is there at all.")


class PromptPatch(ma.Schema):
    name = ma.fields.String(metadata={"description": "Renames it; versions, labels and executions come along"})
    description = ma.fields.String(validate=Length(max=2000))
    category = ma.fields.String(validate=Length(max=64))
    tags = ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50))
    owner_team = ma.fields.String(validate=Length(max=128))


class DeleteQuery(ProjectQuery):
    permanent = Flag(load_default=False, metadata={"description": "With all versions, for good; needs the role admin"})


class RestorePromptIn(ma.Schema):
    name = ma.fields.String(load_default=None, metadata={"description": "Another one, when its own is taken"})


@blp.patch("/prompts/<name>")
@blp.doc(parameters=[preconditions.IF_MATCH])
@blp.arguments(PromptPatch)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, PromptSummary)
def update_prompt(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Change what describes a prompt, or rename it

    What is left out stays. Nothing of this is content: no version is made.
    """
    author = caller(Role.EDITOR)
    with transaction() as session:
        prompt = prompt_rows.lock_prompt(session, author, name, **scope)
        preconditions.asked().check(prompt_rows.etag_of(prompt), f"the prompt {prompt.name}")
        prompt_rows.update_prompt(session, author, prompt, body)
        return render(prompt)


@blp.delete("/prompts/<name>")
@blp.doc(parameters=[preconditions.IF_MATCH])
@blp.arguments(DeleteQuery, location="query")
@blp.response(200, PromptSummary)
def delete_prompt(query: dict[str, Any], name: str) -> flask.Response:
    """Delete a prompt: its name is free at once, and it can be restored by its prompt_id

    What was run with it stays, and what runs goes on. With `permanent=true` it is gone for good, which is refused
    while an execution, evaluation or optimization refers to it. In place of the name its prompt_id may stand.
    """
    permanent = query["permanent"]
    author = caller(Role.ADMIN if permanent else Role.EDITOR)
    with transaction() as session:
        prompt = _named(session, author, name, query["project"])
        preconditions.asked().check(prompt_rows.etag_of(prompt), f"the prompt {prompt.name}")
        answer = render(prompt)
        if permanent:
            prompt_rows.destroy_prompt(session, author, prompt)
            return answer
        prompt_rows.delete_prompt(session, author, prompt)
        return render(prompt)


@blp.post("/prompts/<uuid:prompt_id>/restore")
@blp.arguments(RestorePromptIn)
@blp.response(200, PromptSummary)
def restore_prompt(body: dict[str, Any], prompt_id: uuid.UUID) -> flask.Response:
    """Bring a deleted prompt back as it was, under another name if its own is taken"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        return render(prompt_rows.restore_prompt(session, author, prompt_id, name=body["name"]))


def _named(session: Session, author: Caller, name: str, project: str | None) -> Prompt:
    try:
        prompt_id = uuid.UUID(name)  # never a name: those that look like one are refused
    except ValueError:
        return prompt_rows.lock_prompt(session, author, name, project=project)
    return prompt_rows.lock_by_id(session, author, prompt_id, project=project)


def render(prompt: Prompt) -> flask.Response:
    return preconditions.tagged(flask.jsonify(PromptSummary().dump(prompt)), prompt_rows.etag_of(prompt))

"""/v1/datasets/{name}/cases:generate and /v1/generations: test cases that a model writes."""

import uuid
from collections.abc import Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api import ListQuery, ProjectQuery, WholeNumber, blueprint, page_of, runs
from app.api.content import Length, Params
from app.api.evaluations import EvaluationBudget
from app.api.executions import ModelChoice
from app.auth import caller
from shared.db import reading
from shared.domain import generations
from shared.domain.budgets import Limits
from shared.domain.case_requests import DIVERSE, STRATEGIES
from shared.domain.generations import MAX_COUNT, GenerationRequest, Target
from shared.domain.tenants import Caller
from shared.models import Generation, JobKind, Role

blp = blueprint("generations", "Test cases that a model writes for a prompt's variables.")


class GenerationIn(ma.Schema):
    prompt_name = ma.fields.String(
        required=True, metadata={"description": "Of the dataset's project: `name`, `name@label`, `name@v12`…"}
    )
    count = WholeNumber(required=True, validate=ma.validate.Range(1, MAX_COUNT))
    strategy = ma.fields.String(
        load_default=DIVERSE,
        validate=ma.validate.OneOf(STRATEGIES),
        metadata={"description": "The kind of cases; `diverse` takes every kind in turn"},
    )
    description = ma.fields.String(
        load_default="", validate=Length(max=2000), metadata={"description": "What the cases are to be about"}
    )
    with_expected = ma.fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "Have the model say what each case expects, too; one without is not added"},
    )
    model = ma.fields.Nested(ModelChoice, metadata={"description": "The version's if left out"})
    params = ma.fields.Nested(Params)
    budget = ma.fields.Nested(EvaluationBudget)


class GeneratedOut(ma.Schema):
    kind = ma.fields.String()
    name = ma.fields.String()
    status = ma.fields.String(
        metadata={
            "description": "added; or why not: invalid, no_expectation, near_duplicate, duplicate, surplus, not_added"
        }
    )
    detail = ma.fields.String(allow_none=True)
    test_case_id = ma.fields.String(allow_none=True)


class GenerationOut(ma.Schema):
    generation_id = ma.fields.UUID(attribute="id")
    status = ma.fields.String(attribute="state")
    dataset_id = ma.fields.UUID()
    prompt_id = ma.fields.UUID()
    version_id = ma.fields.UUID()
    strategy = ma.fields.String()
    description = ma.fields.String()
    count = ma.fields.Integer()
    with_expected = ma.fields.Boolean()
    model = ma.fields.Raw()
    progress = ma.fields.Raw(metadata={"description": "{done, total} provider calls"})
    spent = ma.fields.Raw()
    revision = ma.fields.Integer(allow_none=True, metadata={"description": "Of the dataset, that its cases made"})
    results = ma.fields.List(
        ma.fields.Nested(GeneratedOut),
        allow_none=True,
        metadata={"description": "One for each case that a model wrote; null until it is done"},
    )
    error_type = ma.fields.String(allow_none=True)
    error_message = ma.fields.String(allow_none=True)
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)


@blp.post("/datasets/<name>/cases:generate")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(GenerationIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(202, GenerationOut)
def generate_cases(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Have a model write test cases for a prompt into the dataset; poll the Location

    What it writes is checked against the prompt's variables and their schema, and near-duplicates are dropped. The
    cases are marked `generated` and have their kind as a tag. They expect nothing, unless `with_expected` asks the
    model for that too: what is right is for it to say only where you trust it.
    """
    author = caller(Role.EDITOR)
    request = request_of(body)

    def plan() -> Target:
        with reading() as session:
            return generations.plan_generation(session, author, request, name, **scope)

    def make(session: Session, target: Target) -> Any:
        return render(session, generations.create_generation(session, author, request, target))

    answer = replay.create(author, flask.g.body, 202, make, plan=plan)
    answer.headers["Location"] = f"/v1/generations/{answer.get_json()['generation_id']}"
    return answer


@blp.get("/generations")
@blp.arguments(ListQuery, location="query")
@blp.response(200, page_of(GenerationOut))
def list_generations(query: dict[str, Any]) -> flask.Response:
    """List generations of test cases, newest first"""
    with reading() as session:
        page = generations.list_generations(session, caller(), **query)
        return flask.jsonify({"data": render_all(session, page.data), "next_cursor": page.next_cursor})


@blp.get("/generations/<uuid:generation_id>")
@blp.doc(parameters=[waiting.PREFER])
@blp.response(200, GenerationOut)
def get_generation(generation_id: uuid.UUID) -> flask.Response:
    """Read a generation: progress while it runs, a result per case when it is done"""
    author = caller()
    return waiting.read_when_ended(
        JobKind.GENERATION,
        generation_id,
        lambda session: generations.get_generation(session, author, generation_id),
        lambda session, generation: flask.jsonify(render(session, generation)),
    )


@blp.post("/generations/<uuid:generation_id>/cancel")
@blp.response(200, GenerationOut)
def cancel_generation(generation_id: uuid.UUID) -> flask.Response:
    """Cancel a generation; what was paid for can be read in its executions"""

    def find(session: Session, author: Caller) -> Generation:
        return generations.get_generation(session, author, generation_id)

    return flask.jsonify(runs.cancel(JobKind.GENERATION, find, render))


def request_of(body: dict[str, Any]) -> GenerationRequest:
    fields = dict(body)
    model, budget = fields.pop("model", {}), fields.pop("budget", None)
    return GenerationRequest(
        **fields,
        provider=model.get("provider"),
        model_name=model.get("model_name"),
        limits=Limits(**budget) if budget else None,
    )


def render(session: Session, generation: Generation) -> Any:
    return render_all(session, [generation])[0]


def render_all(session: Session, found: Sequence[Generation]) -> list[Any]:
    told = runs.told(session, found)
    rendered = GenerationOut().dump(found, many=True)
    return [{**own, **told[generation.id]} for own, generation in zip(rendered, found, strict=True)]

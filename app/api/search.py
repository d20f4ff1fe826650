"""/v1/prompts/search: finding prompts by what they say."""

from typing import Any

import flask
import marshmallow as ma

from app.api import PageQuery, WholeNumber, blueprint, project_field
from app.api.content import Length
from app.api.prompts import PromptSummary
from app.auth import caller
from shared.db import reading
from shared.domain import search
from shared.domain.search import Filters, Found

blp = blueprint("search", "Finding prompts by name, tags, description and content.")
MODES = ("full", "tracking")
STATES = ("draft", "published", "deprecated", "archived")


class Asked(ma.Schema):
    q = ma.fields.String(
        load_default="",
        validate=Length(max=10_000),
        metadata={"description": 'Words, `"words side by side"`, `-without`; the last word may go on'},
    )
    category = ma.fields.String(load_default=None, validate=Length(1, 64))
    tag = ma.fields.String(load_default=None, validate=Length(1, 64))
    mode = ma.fields.String(load_default=None, validate=ma.validate.OneOf(MODES))
    lifecycle = ma.fields.String(load_default=None, validate=ma.validate.OneOf(STATES))
    owner_team = ma.fields.String(load_default=None, validate=Length(1, 128))
    project = project_field(load_default=None, metadata={"description": "Name or id; every project if left out"})


class SearchQuery(Asked, PageQuery):
    pass


class SearchIn(Asked):
    limit = WholeNumber(load_default=50, validate=ma.validate.Range(1, 100))
    cursor = ma.fields.String(load_default=None, allow_none=True)


class SuggestQuery(ma.Schema):
    q = ma.fields.String(load_default="", validate=Length(max=200))
    project = project_field(load_default=None, metadata={"description": "Name or id; every project if left out"})


class PartOut(ma.Schema):
    text = ma.fields.String()
    match = ma.fields.Boolean(metadata={"description": "Show it marked: it is what was looked for"})


class HitOut(PromptSummary):
    version_number = ma.fields.Integer(
        allow_none=True, metadata={"description": "Whose content was searched: at `production`, else the latest"}
    )
    matched_in = ma.fields.String(
        allow_none=True, metadata={"description": "`name`, `tags`, `description` or `content`: the deepest it needs"}
    )
    highlights = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.List(ma.fields.Nested(PartOut)),
        metadata={"description": "By field, the text around the first match; plain text, not HTML"},
    )


class FacetValue(ma.Schema):
    value = ma.fields.String()
    count = ma.fields.Integer()


class SearchPage(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(HitOut))
    next_cursor = ma.fields.String(allow_none=True)
    total = ma.fields.Integer(allow_none=True, metadata={"description": "How many match; null after the first page"})
    total_is_exact = ma.fields.Boolean(
        allow_none=True, metadata={"description": "False: there are more, and facets count the `total` newest only"}
    )
    facets = ma.fields.Dict(
        keys=ma.fields.String(validate=ma.validate.OneOf(search.FACETS)),
        values=ma.fields.List(ma.fields.Nested(FacetValue)),
        allow_none=True,
        metadata={"description": "Each as if its own filter were not given"},
    )
    did_you_mean = ma.fields.String(
        allow_none=True, metadata={"description": "When nothing matches, a query that does"}
    )


class CompletionOut(ma.Schema):
    kind = ma.fields.String(metadata={"description": "`name` or `tag`"})
    text = ma.fields.String()


class SuggestionList(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(CompletionOut))
    next_cursor = ma.fields.String(allow_none=True)


@blp.get("/prompts/search")
@blp.arguments(SearchQuery, location="query")
@blp.response(200, SearchPage)
def search_prompts(query: dict[str, Any]) -> flask.Response:
    """Search prompts, best first, with counts by category, tag, mode, lifecycle and team"""
    return _answer(query)


@blp.post("/prompts:search")
@blp.fails(never=(403, 409))
@blp.arguments(SearchIn)
@blp.response(200, SearchPage)
def search_by_body(body: dict[str, Any]) -> flask.Response:
    """Search prompts, for queries that are too long for an address"""
    return _answer(body)


@blp.get("/prompts/search/suggest")
@blp.arguments(SuggestQuery, location="query")
@blp.response(200, SuggestionList)
def suggest(query: dict[str, Any]) -> flask.Response:
    """Complete the names and tags that hold what was typed"""
    with reading() as session:
        found = search.suggest(session, caller(), **query)
        return flask.jsonify({"data": CompletionOut().dump(found, many=True), "next_cursor": None})


def _answer(asked: dict[str, Any]) -> flask.Response:
    filters = Filters(**{facet: asked.pop(facet) for facet in search.FACETS})
    with reading() as session:
        return flask.jsonify(_page(search.search(session, caller(), filters=filters, **asked)))


def _page(found: Found) -> dict[str, Any]:
    summaries = PromptSummary().dump([hit.prompt for hit in found.hits], many=True)
    hits = [
        {
            **summary,
            "version_number": hit.version_number,
            "matched_in": hit.matched_in,
            "highlights": {field: [vars(part) for part in parts] for field, parts in hit.highlights.items()},
        }
        for summary, hit in zip(summaries, found.hits, strict=True)
    ]
    counts = found.counts
    return {
        "data": hits,
        "next_cursor": found.next_cursor,
        "total": counts.total if counts else None,
        "total_is_exact": counts.is_exact if counts else None,
        "facets": {
            facet: [{"value": value, "count": count} for value, count in values]
            for facet, values in counts.facets.items()
        }
        if counts
        else None,
        "did_you_mean": found.did_you_mean,
    }

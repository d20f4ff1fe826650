"""/api/v1/prompts/search: by words, or by category and name, filled."""

from collections.abc import Mapping
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import Digits, WholeNumber
from app.auth import caller
from app.bodies import json_body, refuse_unstorable
from app.compat.prompt_store import CURL, Length, answer, blueprint, either, enveloped, home, required, slice_of
from app.compat.prompt_store.prompts import StorePromptOut, in_category, rendered, tags_field
from shared.db import reading
from shared.domain import search
from shared.domain.content import render_messages
from shared.domain.prompt_cards import cards_of
from shared.domain.search import Filters
from shared.errors import FieldError, Unprocessable
from shared.models import Prompt
from shared.strict_json import loads

blp = blueprint("searches", "finding prompts by words, or by name, filled.")
MOST_READ = 2_000  # hits that are looked through for several tags


class StoreSearchQuery(ma.Schema):
    query = ma.fields.String(validate=Length(max=10_000))
    category = ma.fields.String(validate=Length(1, 64))
    limit = Digits(load_default=50, validate=ma.validate.Range(1, 100))


class StoreSearchIn(ma.Schema):
    """All of it, or as the originals a list of tags alone, with the rest in the query."""

    alone = "tags"
    query = ma.fields.String(validate=Length(max=10_000))
    category = ma.fields.String(validate=Length(1, 64), allow_none=True)
    tags = tags_field(allow_none=True, metadata={"description": "A prompt that has any of them"})
    limit = WholeNumber(validate=ma.validate.Range(1, 100))


class StoreFillQuery(ma.Schema):
    variables = ma.fields.String(metadata={"description": "A JSON object; it may be sent as the body instead"})


class StoreFilledOut(StorePromptOut):
    filled_content = ma.fields.String(metadata={"description": "Only if variables are given"})


@blp.post("/prompts/search")
@blp.arguments(StoreSearchIn)
@blp.arguments(StoreSearchQuery, location="query")
@blp.response(200, enveloped(slice_of(StorePromptOut)))
def store_search(body: dict[str, Any], query: dict[str, Any]) -> flask.Response:
    """Search prompts by words of name, tags, description and content, best first"""
    if "limit" not in flask.request.args:
        query["limit"] = body.get("limit") or query["limit"]
    asked = either(query, {name: value for name, value in body.items() if value is not None})
    required(asked, "query")
    limit, tags = asked["limit"], asked.get("tags") or []
    with reading() as session:
        hits, total, more = _search(session, asked["query"], asked.get("category"), tags, limit)
        items = rendered(session, caller(), hits)
    data = {"items": items, "total": total, "has_more": more, "limit": limit, "offset": 0}
    return answer(data, "Prompts searched successfully")


@blp.get("/prompts/search/<category>/<name>")
@blp.arguments(StoreFillQuery, location="query")
@blp.response(200, enveloped(StoreFilledOut))
def store_fill(query: dict[str, Any], category: str, name: str) -> flask.Response:
    """Read a prompt by its category and name, and fill it with variables

    422 when one that the content uses is missing. Reading is not counted as a use: running it is.
    """
    variables = _variables(query)
    with reading() as session:
        prompt = in_category(session, category, name)
        (card,) = cards_of(session, caller(), [prompt])
        data = rendered(session, caller(), [prompt])[0]
    if not variables:
        return answer(data, "Prompt retrieved successfully")
    messages = render_messages(card.version.content, variables)
    data["filled_content"] = "\n".join(message["content"] for message in messages)
    return answer(data, "Prompt retrieved and filled successfully")


def _search(
    session: Session, words: str, category: str | None, tags: list[str], limit: int
) -> tuple[list[Prompt], int, bool]:
    """(hits, how many there are, whether there are more than these)."""
    scope: dict[str, Any] = {"project": home()}
    if len(tags) < 2:
        filters = Filters(category=category, tag=tags[0] if tags else None)
        found = search.search(session, caller(), words, filters=filters, limit=limit, **scope)
        total = found.counts.total if found.counts else len(found.hits)
        return [hit.prompt for hit in found.hits], total, found.next_cursor is not None
    # The index knows one tag. Of several any counts, so the hits are looked through, up to so many.
    hits: list[Prompt] = []
    cursor: str | None = None
    for _ in range(0, MOST_READ, 100):
        filters = Filters(category=category)
        found = search.search(session, caller(), words, filters=filters, limit=100, cursor=cursor, **scope)
        hits += [hit.prompt for hit in found.hits if set(tags) & set(hit.prompt.tags)]
        cursor = found.next_cursor
        if cursor is None:
            break
    return hits[:limit], len(hits), cursor is not None or len(hits) > limit


def _variables(query: Mapping[str, Any]) -> dict[str, Any]:
    """Of the query, or of a body, which is the variables or an object that holds them."""
    pointer = "?variables" if "variables" in query else "/variables"
    if "variables" in query:
        try:
            given = loads(query["variables"])
        except ValueError as error:
            raise Unprocessable(f"?variables: {error}", errors=[FieldError(pointer, str(error))]) from error
        refuse_unstorable(given)
    else:
        given = json_body(flask.request, also=[CURL])
        if isinstance(given, dict) and set(given) == {"variables"} and isinstance(given["variables"], dict):
            given = given["variables"]
    if not isinstance(given, dict):
        raise Unprocessable(f"{pointer}: must be an object", errors=[FieldError(pointer, "must be an object")])
    return given

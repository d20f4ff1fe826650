"""/api/v1/prompts/{id}/drift and /suggestions: of the prompt itself, its text and its answers."""

from typing import Any

import flask
import marshmallow as ma

from app.auth import caller
from app.compat.prompt_store import answer, blueprint, enveloped, find
from shared.db import reading
from shared.domain import drift, suggestions
from shared.domain.drift import Span
from shared.domain.executions import Filter
from shared.domain.prompt_cards import cards_of

blp = blueprint("insights", "drift and suggestions.")
MOST_SUGGESTIONS = 5


class StoreChangeOut(ma.Schema):
    version = ma.fields.Integer(attribute="version_number")
    similarity = ma.fields.Float(metadata={"description": "Jaccard's, of the words of both texts"})
    created_at = ma.fields.DateTime()


class StoreSignalOut(ma.Schema):
    name = ma.fields.String(data_key="signal")
    test = ma.fields.String()
    effect = ma.fields.Float(allow_none=True)
    adjusted_p_value = ma.fields.Float(allow_none=True)
    verdict = ma.fields.String()


class StoreDriftOut(ma.Schema):
    drift_detected = ma.fields.Boolean(metadata={"description": "In the text, or in what came back"})
    drift_score = ma.fields.Float(metadata={"description": "1 less the mean similarity of the significant changes"})
    significant_changes = ma.fields.List(ma.fields.Nested(StoreChangeOut))
    answers_verdict = ma.fields.String(metadata={"description": "Last 7 days beside the 28 before"})
    signals = ma.fields.List(ma.fields.Nested(StoreSignalOut))


class StoreSuggestionsOut(ma.Schema):
    suggestions = ma.fields.List(ma.fields.String(), metadata={"description": "Up to five, the gravest first"})
    total = ma.fields.Integer(
        metadata={"description": "How many there are; GET /v1/prompts/{name}/suggestions has all"}
    )


@blp.get("/prompts/<prompt_id>/drift")
@blp.response(200, enveloped(StoreDriftOut))
def store_drift(prompt_id: str) -> flask.Response:
    """Compare the current text with the versions before it, and the last week's answers with those before"""
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        (card,) = cards_of(session, caller(), [prompt])
        report = drift.report(session, caller(), prompt, Filter(purpose="run"), baseline=None, current=None)
        text = drift.textual(session, prompt, Span(), Span(version_number=card.version.number))
    found = {
        "drift_detected": bool(text.significant) or report.verdict == drift.DRIFT,
        "drift_score": text.score,
        "significant_changes": text.significant,
        "answers_verdict": report.verdict,
        "signals": report.signals,
    }
    return answer(StoreDriftOut().dump(found), "Prompt drift analysis completed")


@blp.get("/prompts/<prompt_id>/suggestions")
@blp.response(200, enveloped(StoreSuggestionsOut))
def store_suggestions(prompt_id: str) -> flask.Response:
    """Look at the current text: what is likely to go wrong, and why"""
    with reading() as session:
        (card,) = cards_of(session, caller(), [find(session, caller(), prompt_id)])
        found = suggestions.suggestions_for(session, card.version)
    said: list[Any] = [f"Line {one.line}: {one.reason}. {one.example}" for one in found[:MOST_SUGGESTIONS]]
    return answer({"suggestions": said, "total": len(found)}, "Suggestions generated successfully")

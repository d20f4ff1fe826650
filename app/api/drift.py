"""/v1/prompts/{name}/drift: does what a prompt says, or what comes back, differ from before?"""

import re
from typing import Any

import flask
import marshmallow as ma

from app.api import Moment, ProjectQuery, blueprint
from app.auth import caller
from shared.db import reading
from shared.domain import drift, executions, prompts
from shared.domain.drift import Report, Side, Signal, Span, Textual
from shared.domain.executions import Filter

blp = blueprint("drift", "Whether what a prompt says, or what comes back, differs from before.")


def _described(text: str) -> dict[str, str]:
    return {"description": text}


class SpanField(ma.fields.Field[Span]):
    """`v3`, or a period `2026-11-01T00:00:00Z..2026-11-08T00:00:00Z`."""

    default_error_messages = {  # noqa: RUF012  # marshmallow's way to name its messages
        "invalid": "must be a version such as v3, or two times with `..` between, each with its offset from UTC"
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Span:
        if re.fullmatch(r"v[1-9][0-9]{0,8}", value):
            return Span(version_number=int(value[1:]))
        start, dots, end = value.partition("..")
        if not dots:
            raise self.make_error("invalid")
        try:
            return Span(start=Moment().deserialize(start), end=Moment().deserialize(end))
        except ma.ValidationError as error:
            raise self.make_error("invalid") from error


_SPAN = "`v3`, or a period `<from>..<to>`; "


class DriftQuery(ProjectQuery):
    baseline = SpanField(
        load_default=None,
        metadata={"type": "string", **_described(_SPAN + "the 28 days, or the version, before `current` if left out")},
    )
    current = SpanField(
        load_default=None,
        metadata={
            "type": "string",
            **_described(_SPAN + "the last 7 days if left out, or the newest version if the baseline is one"),
        },
    )
    environment = ma.fields.String(load_default=None)
    provider = ma.fields.String(load_default=None)
    model_name = ma.fields.String(load_default=None)
    purpose = ma.fields.String(load_default="run", validate=ma.validate.OneOf(executions.PURPOSES))


class SimilarityOut(ma.Schema):
    version_number = ma.fields.Integer()
    similarity = ma.fields.Float()
    created_at = ma.fields.DateTime()


class TextualOut(ma.Schema):
    signal = ma.fields.String(metadata=_described("`textual`: the share of words that both texts have (Jaccard)"))
    threshold = ma.fields.Float()
    version_number = ma.fields.Integer()
    compared_with = ma.fields.Integer(allow_none=True, metadata=_described("Version; null: there is no other"))
    similarity = ma.fields.Float(allow_none=True)
    verdict = ma.fields.String(allow_none=True)
    drift_score = ma.fields.Float(
        metadata=_described("1 less the mean similarity of the earlier versions below the threshold; 0: there are none")
    )
    significant_changes = ma.fields.List(
        ma.fields.Nested(SimilarityOut), metadata=_described("Earlier versions below the threshold, newest first")
    )


class SideOut(ma.Schema):
    version_number = ma.fields.Integer(allow_none=True)
    start = ma.fields.DateTime(data_key="from")
    end = ma.fields.DateTime(data_key="to")
    executions = ma.fields.Integer(metadata=_described("That succeeded or failed; the newest 5,000 at most"))


class SignalOut(ma.Schema):
    signal = ma.fields.String()
    test = ma.fields.String()
    effect_name = ma.fields.String()
    minimum_effect = ma.fields.Float(metadata=_described("Smaller ones are never called drift"))
    n_baseline = ma.fields.Integer()
    n_current = ma.fields.Integer()
    baseline = ma.fields.Float(allow_none=True, metadata=_described("The median; of `error_rate` the rate"))
    current = ma.fields.Float(allow_none=True)
    effect = ma.fields.Float(allow_none=True)
    p_value = ma.fields.Float(allow_none=True)
    adjusted_p_value = ma.fields.Float(allow_none=True, metadata=_described("By Holm, over the signals with enough"))
    verdict = ma.fields.String(metadata=_described("`drift`, `no_drift_found` or `not_enough_data`"))


class DriftOut(ma.Schema):
    prompt_id = ma.fields.UUID()
    prompt_name = ma.fields.String()
    verdict = ma.fields.String(metadata=_described("Of the answers: `drift`, `no_drift_found` or `not_enough_data`"))
    textual = ma.fields.Nested(TextualOut)
    baseline = ma.fields.Nested(SideOut)
    current = ma.fields.Nested(SideOut)
    signals = ma.fields.List(ma.fields.Nested(SignalOut))
    alpha = ma.fields.Float()
    minimum_n = ma.fields.Integer(metadata=_described("Values that a signal needs on each side"))


@blp.get("/prompts/<name>/drift")
@blp.arguments(DriftQuery, location="query")
@blp.response(200, DriftOut)
def get_drift(query: dict[str, Any], name: str) -> flask.Response:
    """Compare two versions or two periods of a prompt: its text, and what came back"""
    project, baseline, current = query.pop("project"), query.pop("baseline"), query.pop("current")
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=project)
        found = drift.report(session, caller(), prompt, Filter(**query), baseline=baseline, current=current)
    return flask.jsonify({"prompt_id": str(prompt.id), "prompt_name": prompt.name, **_report(found)})


def _report(found: Report) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "textual": _textual(found.textual),
        "baseline": _side(found.baseline),
        "current": _side(found.current),
        "signals": [_signal(signal) for signal in found.signals],
        "alpha": drift.ALPHA,
        "minimum_n": drift.ENOUGH,
    }


def _textual(found: Textual) -> Any:
    verdict = drift.DRIFT if found.has_drifted else drift.NOTHING_FOUND
    return {
        "signal": "textual",
        "threshold": drift.SIMILARITY,
        "version_number": found.version_number,
        "compared_with": found.compared_with,
        "similarity": found.similarity,
        "verdict": verdict if found.similarity is not None else drift.NOT_ENOUGH_DATA,
        "drift_score": found.score,
        "significant_changes": SimilarityOut().dump(found.significant, many=True),
    }


def _side(side: Side) -> Any:
    span = side.span
    fields = {"version_number": span.version_number, "start": span.start, "end": span.end}
    return SideOut().dump({**fields, "executions": side.executions})


def _signal(signal: Signal) -> dict[str, Any]:
    return {
        "signal": signal.name,
        "test": signal.test,
        "effect_name": signal.effect_name,
        "minimum_effect": signal.minimum_effect,
        "n_baseline": signal.n[0],
        "n_current": signal.n[1],
        "baseline": signal.middle[0],
        "current": signal.middle[1],
        "effect": signal.effect,
        "p_value": signal.p_value,
        "adjusted_p_value": signal.adjusted_p_value,
        "verdict": signal.verdict,
    }

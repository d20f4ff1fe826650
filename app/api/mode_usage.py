"""/v1/analytics: what was run and how it went, counted from the rows."""

from typing import Any

import flask
import marshmallow as ma

from app.api import Moment, blueprint, project_field
from app.auth import caller
from shared.db import reading
from shared.domain import mode_usage, providers
from shared.domain.mode_usage import ModeUsage, Window
from shared.domain.modes import MODES

blp = blueprint("mode_usage", "What was run, what it cost and how long it took, from the rows of the executions.")
ALL = "all"


class ModeWindowQuery(ma.Schema):
    """Of every project unless one is named, of all time unless a window is."""

    project = project_field(load_default=None, metadata={"description": "Name or id; every project if left out"})
    start = Moment(load_default=None, data_key="from", metadata={"description": "Submitted at or after this time"})
    end = Moment(load_default=None, data_key="to", metadata={"description": "Submitted before this time"})


class PromptsUsageQuery(ModeWindowQuery):
    mode = ma.fields.String(load_default=ALL, validate=ma.validate.OneOf([ALL, *MODES]))


class PromptsSummaryOut(ma.Schema):
    total_executions = ma.fields.Integer(metadata={"description": "Runs, not calls of evaluations or optimizations"})
    full_mode_prompts = ma.fields.Integer()
    tracking_mode_prompts = ma.fields.Integer()
    succeeded = ma.fields.Integer()
    failed = ma.fields.Integer()
    canceled = ma.fields.Integer()
    total_prompt_tokens = ma.fields.Integer()
    total_response_tokens = ma.fields.Integer()
    total_cost_usd = ma.fields.Float(allow_none=True, metadata={"description": "null when no price is known at all"})
    unpriced_executions = ma.fields.Integer(metadata={"description": "Answers that total_cost_usd leaves out"})


class ModeUsageOut(ma.Schema):
    prompt_count = ma.fields.Integer()
    execution_count = ma.fields.Integer()
    succeeded = ma.fields.Integer()
    failed = ma.fields.Integer()
    canceled = ma.fields.Integer()
    avg_latency_ms = ma.fields.Float(allow_none=True, metadata={"description": "Of those that succeeded"})
    p50_latency_ms = ma.fields.Integer(allow_none=True)
    p95_latency_ms = ma.fields.Integer(allow_none=True)
    p99_latency_ms = ma.fields.Integer(allow_none=True)
    total_prompt_tokens = ma.fields.Integer()
    total_response_tokens = ma.fields.Integer()
    total_cost_usd = ma.fields.Float(allow_none=True)
    unpriced_executions = ma.fields.Integer()


class PromptsUsageOut(ma.Schema):
    mode = ma.fields.String()
    summary = ma.fields.Nested(PromptsSummaryOut)
    by_mode = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Nested(ModeUsageOut))


@blp.get("/analytics/prompts")
@blp.arguments(PromptsUsageQuery, location="query")
@blp.response(200, PromptsUsageOut)
def prompts_usage(query: dict[str, Any]) -> flask.Response:
    """Runs by the mode of their prompt: how many, how fast, at what cost

    A run counts under the mode that its prompt has now. Prompts are counted as they are now, whatever the window.
    """
    window = Window(query["start"], query["end"])
    with reading() as session:
        usage = mode_usage.usage_by_mode(session, caller(), project=query["project"], window=window)
    wanted = MODES if query["mode"] == ALL else (query["mode"],)
    return flask.jsonify(
        {
            "mode": query["mode"],
            "summary": _summary(usage, [usage[mode] for mode in wanted]),
            "by_mode": {mode: _mode_usage(usage[mode]) for mode in wanted},
        }
    )


def _summary(usage: dict[str, ModeUsage], wanted: list[ModeUsage]) -> Any:
    return PromptsSummaryOut().dump(
        {
            "total_executions": mode_usage.total(wanted, "execution_count"),
            **{f"{mode}_mode_prompts": usage[mode].prompt_count for mode in MODES},
            **{name: mode_usage.total(wanted, name) for name in ("succeeded", "failed", "canceled")},
            "total_prompt_tokens": mode_usage.total(wanted, "prompt_tokens"),
            "total_response_tokens": mode_usage.total(wanted, "response_tokens"),
            "total_cost_usd": providers.usd(mode_usage.total(wanted, "cost_nano")),
            "unpriced_executions": mode_usage.total(wanted, "unpriced"),
        }
    )


def _mode_usage(usage: ModeUsage) -> Any:
    return ModeUsageOut().dump(
        {
            **vars(usage),
            **{f"p{percent}_latency_ms": value for percent, value in usage.latency_ms.items()},
            "total_prompt_tokens": usage.prompt_tokens,
            "total_response_tokens": usage.response_tokens,
            "total_cost_usd": providers.usd(usage.cost_nano),
            "unpriced_executions": usage.unpriced,
        }
    )

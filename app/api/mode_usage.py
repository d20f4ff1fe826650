"""/v1/analytics: what was run and how it went, counted from the rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma

from app.api import Moment, blueprint, project_field
from app.auth import caller
from shared.db import reading
from shared.domain import analytics, providers
from shared.domain.analytics import PERCENTILES, Figures, ModeUsage
from shared.domain.executions import Filter
from shared.domain.modes import MODES

blp = blueprint("mode_usage", "What was run, what it cost and how long it took, from the rows of the executions.")
ALL = "all"


class PromptsUsageQuery(ma.Schema):
    """Of every project unless one is named, of all time unless a window is."""

    project = project_field(load_default=None, metadata={"description": "Name or id; every project if left out"})
    created_from = Moment(data_key="from", load_default=None, metadata={"description": "Submitted at or after this"})
    created_before = Moment(data_key="to", load_default=None, metadata={"description": "Submitted before this"})
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
    p50_latency_ms = ma.fields.Float(allow_none=True)
    p95_latency_ms = ma.fields.Float(allow_none=True)
    p99_latency_ms = ma.fields.Float(allow_none=True)
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
    mode = query.pop("mode")
    with reading() as session:
        usage = analytics.by_mode(session, caller(), Filter(**query))
    wanted = MODES if mode == ALL else (mode,)
    return flask.jsonify(
        {
            "mode": mode,
            "summary": _summary(usage, [usage[name].runs for name in wanted]),
            "by_mode": {name: _mode_usage(usage[name]) for name in wanted},
        }
    )


def _summary(usage: Mapping[str, ModeUsage], runs: Sequence[Figures]) -> Any:
    costs = [known for figures in runs if (known := figures.known_cost_nano) is not None]
    # Where nothing was answered, nothing was paid: that is no price for what was answered elsewhere.
    is_known = any(costs) or len(costs) == len(runs)
    return PromptsSummaryOut().dump(
        {
            "total_executions": sum(figures.executions for figures in runs),
            **{f"{mode}_mode_prompts": usage[mode].prompts for mode in MODES},
            **{name: sum(getattr(figures, name) for figures in runs) for name in ("succeeded", "failed", "canceled")},
            "total_prompt_tokens": sum(figures.prompt_tokens for figures in runs),
            "total_response_tokens": sum(figures.response_tokens for figures in runs),
            "total_cost_usd": providers.usd(sum(costs)) if is_known else None,
            "unpriced_executions": sum(figures.without_cost for figures in runs),
        }
    )


def _mode_usage(usage: ModeUsage) -> Any:
    runs = usage.runs
    percentiles = zip(PERCENTILES, runs.latency_ms, strict=True)
    return ModeUsageOut().dump(
        {
            "prompt_count": usage.prompts,
            "execution_count": runs.executions,
            **{name: getattr(runs, name) for name in ("succeeded", "failed", "canceled")},
            "avg_latency_ms": runs.mean_latency_ms,
            **{f"p{percent}_latency_ms": value for percent, value in percentiles},
            "total_prompt_tokens": runs.prompt_tokens,
            "total_response_tokens": runs.response_tokens,
            "total_cost_usd": providers.usd(runs.known_cost_nano),
            "unpriced_executions": runs.without_cost,
        }
    )

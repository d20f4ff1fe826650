"""/v1/cache: what is remembered of prompts, how to have it forgotten, and how to have it ready."""

from typing import Any

import flask
import marshmallow as ma

from app import cached
from app.api import WholeNumber, blueprint, project_field
from app.api.content import Length, VersionOut
from app.api.prompts import version_subjects
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import cached_reads
from shared.domain.names import LATEST, PRODUCTION, check_label
from shared.domain.tenants import DEFAULT_PROJECT
from shared.models import Role

blp = blueprint("cache", "What is remembered of prompts that were read.")


class CacheStatsOut(ma.Schema):
    """Of this workspace; the counts are of all processes, the entries of the one that answers."""

    total_hits = ma.fields.Integer()
    local_hits = ma.fields.Integer(metadata={"description": "Answered by the process that was asked"})
    redis_hits = ma.fields.Integer()
    total_misses = ma.fields.Integer(metadata={"description": "Read from the database"})
    hit_ratio = ma.fields.Float(allow_none=True, metadata={"description": "null: nothing was asked yet"})
    avg_response_time_ms = ma.fields.Float(allow_none=True, metadata={"description": "Inside the process"})
    local_cache_entries = ma.fields.Integer()
    total_size_bytes = ma.fields.Integer()
    max_size_bytes = ma.fields.Integer(metadata={"description": "Of a process, for all workspaces together"})
    redis_available = ma.fields.Boolean()


class ForgetIn(ma.Schema):
    pattern = ma.fields.String(
        load_default="*", validate=Length(1, 129), metadata={"description": "A name, the beginning of one and *, or *"}
    )
    project = project_field(load_default=None)


class ForgetOut(ma.Schema):
    prompts = ma.fields.Integer(metadata={"description": "How many match; all processes forget them within a second"})


class WarmUpIn(ma.Schema):
    label = ma.fields.String(load_default=PRODUCTION)
    limit = WholeNumber(load_default=1_000, validate=ma.validate.Range(1, 10_000))


class WarmUpOut(ma.Schema):
    prompts = ma.fields.Integer(metadata={"description": "How many are ready now"})
    redis_available = ma.fields.Boolean(metadata={"description": "false: only in the process that answered"})


@blp.get("/cache/stats")
@blp.response(200, CacheStatsOut)
def get_stats() -> flask.Response:
    """How often reads were answered without the database"""
    reader, registry = caller(), cached.registry()
    counts, is_available = registry.counts(reader.workspace_id)
    hits, misses = counts["local"] + counts["redis"], counts["miss"]
    entries, size = registry.local.size_of(reader.workspace_id.hex)
    return flask.jsonify(
        CacheStatsOut().dump(
            {
                "total_hits": hits,
                "local_hits": counts["local"],
                "redis_hits": counts["redis"],
                "total_misses": misses,
                "hit_ratio": hits / (hits + misses) if hits + misses else None,
                "avg_response_time_ms": counts["microseconds"] / 1000 / (hits + misses) if hits + misses else None,
                "local_cache_entries": entries,
                "total_size_bytes": size,
                "max_size_bytes": registry.local.max_bytes,
                "redis_available": is_available,
            }
        )
    )


@blp.post("/cache/invalidate")
@blp.arguments(ForgetIn)
@blp.response(200, ForgetOut)
def forget(body: dict[str, Any]) -> flask.Response:
    """Have all processes forget what they remember

    Never needed for what was changed through the API: that is forgotten by itself. It is for rows that somebody
    changed in the database by hand.
    """
    author = caller(Role.EDITOR)
    with transaction() as session:
        count = cached_reads.forget(session, author, body["pattern"], project=body["project"])
    return flask.jsonify(ForgetOut().dump({"prompts": count}))


@blp.post("/cache/warmup")
@blp.arguments(WarmUpIn)
@blp.response(200, WarmUpOut)
def warm_up(body: dict[str, Any]) -> flask.Response:
    """Remember what a label points at, of the prompts that were run most in the last seven days, then of the newest

    In Redis for all processes, and in the process that answers.
    """
    author, registry, label = caller(Role.EDITOR), cached.registry(), body["label"]
    if label != LATEST:
        check_label(label)
    registry.refresh()
    version = registry.version
    with reading() as session:
        found = cached_reads.worth_remembering(session, author, label=label, limit=body["limit"])
    schema = VersionOut()
    for number, (prompt, row, project) in enumerate(found, start=1):
        made = cached.Made(schema.dump(row), version_subjects(prompt, label), prompt.project_id)
        scope = None if project == DEFAULT_PROJECT else project
        registry.keep(cached.key_of(author, ("version", scope, prompt.name, label)), made, version=version)
        if number % cached.UNSHARED == 0 or number == len(found):
            registry.refresh(now=True)
    return flask.jsonify(WarmUpOut().dump({"prompts": len(found), "redis_available": registry.shared.is_usable}))

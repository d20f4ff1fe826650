"""The gate between a search and a label: a rule on the holdout, or an override that says so."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import stats
from shared.db import db_now
from shared.domain import events, label_moves, labels, optimizations, prompts
from shared.domain.events import Change
from shared.domain.names import PRODUCTION, check_label
from shared.domain.preconditions import ANY, Precondition
from shared.domain.tenants import Caller
from shared.errors import Conflict, FieldError, PromotionRefused, field_error
from shared.knobs import TINY
from shared.models import LabelRequest, Optimization, State, Version

RULES = ("ci_excludes_zero", "point_estimate", "non_inferior")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """`margin` is that of `non_inferior`: how much worse the best version may be. `override` needs a `reason`."""

    label: str = PRODUCTION
    rule: str = "ci_excludes_zero"
    margin: float | None = None
    override: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Promotion:
    """What came of it. `record` is what the run keeps."""

    record: Mapping[str, Any]
    etag: str | None  # of the label; None: the move takes a second person


def check_wanted(wanted: Wanted) -> None:
    check_label(wanted.label, "/label")
    if wanted.rule == "non_inferior" and wanted.margin is None:
        raise field_error("/margin", "non_inferior needs the margin by which the best version may be worse")
    if wanted.rule != "non_inferior" and wanted.margin is not None:
        raise field_error("/margin", "belongs to the rule non_inferior")
    if wanted.override and not wanted.reason.strip():
        raise field_error("/reason", "an override says why")


def shortfall(result: Mapping[str, Any], wanted: Wanted) -> str | None:
    """Which number of the holdout stands against the rule; None when the rule holds. Pure."""
    holdout = result["holdout"]
    if result["verdict"] == "not_measured" or holdout is None:
        measured = holdout["n"] if holdout else 0
        return f"n is {measured}: of {result['cases']['holdout']} holdout cases too few have a score in both"
    if result.get("tiny") and wanted.rule != "point_estimate":
        return f"n is {holdout['n']}, of fewer than {TINY} cases in all: an interval over so few proves nothing"
    if wanted.rule == "point_estimate":
        found = holdout["difference"]
        return None if found > 0 else f"difference is {found:.4f}, and must be above 0"
    low = holdout["ci_low"]
    if wanted.rule == "non_inferior":
        assert wanted.margin is not None
        return (
            None
            if stats.reaches(low, -wanted.margin)
            else f"ci_low is {low:.4f}, and must not be below -{wanted.margin:g}"
        )
    if low <= 0:
        return f"ci_low is {low:.4f}, and must be above 0"
    if holdout["p_value"] > stats.LEVEL:
        return (
            f"p_value is {holdout['p_value']:.4f}, and must not be above {stats.LEVEL}: on {holdout['n']} cases too few"
        )
    return None


def promote(
    session: Session,
    caller: Caller,
    optimization_id: uuid.UUID,
    wanted: Wanted,
    *,
    precondition: Precondition = ANY,
) -> Promotion:
    """Point the label at the best version, or ask for that where the label takes a second person.

    `PromotionRefused` when the rule does not hold and nothing overrides it. To promote what the label points at
    already changes nothing.
    """
    optimization = optimizations.get_optimization(session, caller, optimization_id)
    prompt = prompts.get_by_id(
        session, caller, optimization.prompt_id, project=str(optimization.project_id), writing=True
    )
    if optimization.state != State.SUCCEEDED:
        raise Conflict(f"the optimization is {optimization.state}; only a result can be promoted")
    missing = shortfall(optimization.result, wanted)
    if missing and not wanted.override:
        detail = f"{wanted.rule} does not hold: {missing}"
        raise PromotionRefused(detail, errors=[FieldError("/rule", missing)])
    label_moves.lock_prompt(session, prompt)
    before, _ = labels.placed_versions(session, prompt, wanted.label)
    version = session.get_one(Version, optimization.best_version_id)
    reason = wanted.reason or f"optimization {optimization.id}: {optimization.result['verdict']}"
    moved = labels.move_label(session, caller, prompt, wanted.label, version, reason=reason, precondition=precondition)
    request = moved if isinstance(moved, LabelRequest) else None
    record = {
        "label": wanted.label,
        "from_version": before,
        "to_version": version.number,
        "rule": wanted.rule,
        "margin": wanted.margin,
        "holds": missing is None,
        "shortfall": missing,
        "override": missing is not None,
        "reason": wanted.reason,
        "request_id": str(request.id) if request else None,
        "promoted_by": caller.user_name,
        "promoted_at": session.scalars(sa.select(db_now())).one().isoformat(),
    }
    etag = None if isinstance(moved, LabelRequest) else moved.etag
    known = _known(optimization, record)
    if known is None and before != version.number:
        _keep(session, optimization, record, caller)
    return Promotion(known or record, etag)


def _known(optimization: Optimization, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The request that was made before, and that waits still."""
    asked = [one for one in optimization.promotions or [] if one["request_id"] is not None]
    return next((one for one in asked if one["request_id"] == record["request_id"]), None)


def _keep(session: Session, optimization: Optimization, record: Mapping[str, Any], caller: Caller) -> None:
    session.refresh(optimization, with_for_update=True)  # of two who promote, neither forgets the other
    optimization.promotions = [*(optimization.promotions or []), record]
    session.flush()
    told = {name: value for name, value in record.items() if name not in ("promoted_by", "promoted_at")}
    events.record(
        session,
        [Change(optimization.workspace_id, "optimization.promoted", optimization.id, told, caller.user_name)],
    )

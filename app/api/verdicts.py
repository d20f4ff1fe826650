"""What the scores of an evaluation say: by slice, against another evaluation, and at a gate."""

import dataclasses
import re
import uuid
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import Decimal, blueprint
from app.auth import caller
from shared.db import reading
from shared.domain import comparisons, evaluations
from shared.domain.comparisons import MOST_FLIPS, Check, Compared, Wanted
from shared.errors import NotFound, field_error
from shared.models import Evaluation

blp = blueprint("verdicts", "What the scores of an evaluation say: by slice, against another, and at a gate.")
SHOWN_FAILURES = 50
JSON, XML = "application/json", "application/xml"
Share = ma.validate.Range(0, 1)


class SliceOut(ma.Schema):
    name = ma.fields.String()
    cases = ma.fields.Integer(metadata={"description": "Answers with a score"})
    score = ma.fields.Float()
    pass_rate = ma.fields.Float()
    passed = ma.fields.Integer()
    standard_error = ma.fields.Float()
    ci_low = ma.fields.Float()
    ci_high = ma.fields.Float()


class SlicesOut(ma.Schema):
    tag = ma.fields.List(ma.fields.Nested(SliceOut))
    group = ma.fields.List(ma.fields.Nested(SliceOut))
    scorer = ma.fields.List(ma.fields.Nested(SliceOut))
    left_out = ma.fields.Raw(metadata={"description": "How many more there are of each kind"})


class CompareQuery(ma.Schema):
    with_ = ma.fields.UUID(
        required=True, data_key="with", metadata={"description": "The evaluation to compare with: the baseline"}
    )


class FlipOut(ma.Schema):
    content_hash = ma.fields.String()
    ordinal = ma.fields.Integer()
    name = ma.fields.String()
    baseline = ma.fields.Float()
    candidate = ma.fields.Float()


class ComparisonOut(ma.Schema):
    evaluation_id = ma.fields.UUID()
    baseline_id = ma.fields.UUID()
    cases = ma.fields.Integer(metadata={"description": "In common, with a score in both; paired by content"})
    only_in_baseline = ma.fields.Integer()
    only_in_candidate = ma.fields.Integer()
    baseline = ma.fields.Float(metadata={"description": "Mean score on those cases"})
    candidate = ma.fields.Float()
    difference = ma.fields.Float(metadata={"description": "candidate - baseline"})
    ci_low = ma.fields.Float(metadata={"description": "95 % bootstrap interval of the difference"})
    ci_high = ma.fields.Float()
    p_value = ma.fields.Float(metadata={"description": "Two-sided sign-flip permutation test"})
    effect = ma.fields.Float(
        allow_none=True, metadata={"description": "Cohen's d of paired differences; null where all are the same"}
    )
    verdict = ma.fields.String(metadata={"description": "better, worse or not_significant"})
    gained = ma.fields.List(ma.fields.Nested(FlipOut), metadata={"description": "Cases that pass now; the first 100"})
    lost = ma.fields.List(ma.fields.Nested(FlipOut), metadata={"description": "Cases that do not pass any more"})
    gained_count = ma.fields.Integer()
    lost_count = ma.fields.Integer()
    differs = ma.fields.List(
        ma.fields.String(), metadata={"description": "Of prompt, version, model, dataset and dataset_revision"}
    )


class GateQuery(ma.Schema):
    min_score = Decimal(validate=Share, metadata={"description": "The score must reach it"})
    non_inferior_to = ma.fields.UUID(
        metadata={"description": "An evaluation that this one must not be worse than, by more than `margin`"}
    )
    margin = Decimal(validate=Share, metadata={"description": "0 if left out; needs non_inferior_to"})
    max_missing = Decimal(
        load_default=0.0, validate=Share, metadata={"description": "Share of answers that may have no score"}
    )


class CheckOut(ma.Schema):
    name = ma.fields.String()
    passed = ma.fields.Boolean()
    detail = ma.fields.String()


class GateOut(ma.Schema):
    evaluation_id = ma.fields.UUID()
    passed = ma.fields.Boolean()
    reasons = ma.fields.List(ma.fields.String(), metadata={"description": "Why it is not passed; empty if it is"})
    checks = ma.fields.List(ma.fields.Nested(CheckOut))


@blp.get("/evaluations/<uuid:evaluation_id>/slices")
@blp.response(200, SlicesOut)
def get_slices(evaluation_id: uuid.UUID) -> flask.Response:
    """Read the aggregate by tag, by group and by scorer"""
    with reading() as session:
        found = evaluations.get_evaluation(session, caller(), evaluation_id).slices
    return flask.jsonify(found or {"tag": [], "group": [], "scorer": [], "left_out": {}})


@blp.get("/evaluations/<uuid:evaluation_id>/compare")
@blp.fails(409)
@blp.arguments(CompareQuery, location="query")
@blp.response(200, ComparisonOut)
def compare_evaluations(query: dict[str, Any], evaluation_id: uuid.UUID) -> flask.Response:
    """Compare it with another: difference, interval, p-value, effect, and the cases that flipped"""
    with reading() as session:
        candidate = evaluations.get_evaluation(session, caller(), evaluation_id)
        baseline = _other(session, query["with_"], "with")
        found = comparisons.compare(session, candidate, baseline, pointer="?with")
    return flask.jsonify(ComparisonOut().dump(_comparison(candidate, baseline, found)))


@blp.get("/evaluations/<uuid:evaluation_id>/gate")
@blp.fails(409)
@blp.arguments(GateQuery, location="query")
@blp.response(200, GateOut)
def check_gate(query: dict[str, Any], evaluation_id: uuid.UUID) -> flask.Response:
    """Ask whether it is good enough: `passed` with reasons, or JUnit with `Accept: application/xml`"""
    wanted = Wanted(**query)
    if wanted.min_score is None and wanted.non_inferior_to is None:
        raise field_error("?min_score", "give min_score, non_inferior_to or both")
    if wanted.margin is not None and wanted.non_inferior_to is None:
        raise field_error("?margin", "needs non_inferior_to")
    with reading() as session:
        author = caller()
        evaluation = evaluations.get_evaluation(session, author, evaluation_id)
        other = wanted.non_inferior_to
        baseline = None if other is None else _other(session, other, "non_inferior_to")
        checks = comparisons.gate(session, evaluation, wanted, baseline)
        failures = comparisons.failed_cases(session, evaluation, limit=SHOWN_FAILURES)
    if flask.request.accept_mimetypes.best_match([JSON, XML], default=JSON) == XML:
        return flask.Response(_junit(evaluation, checks, failures), mimetype=XML)
    return flask.jsonify(
        {
            "evaluation_id": str(evaluation.id),
            "passed": all(check.passed for check in checks),
            "reasons": [check.detail for check in checks if not check.passed],
            "checks": [dataclasses.asdict(check) for check in checks],
        }
    )


def _other(session: Session, evaluation_id: uuid.UUID, field: str) -> Evaluation:
    try:
        return evaluations.get_evaluation(session, caller(), evaluation_id)
    except NotFound as error:
        raise NotFound(error.detail, fields=[field]) from error


def _comparison(candidate: Evaluation, baseline: Evaluation, found: Compared) -> dict[str, Any]:
    facts = dataclasses.asdict(found.difference)
    return {
        **facts,
        "cases": facts.pop("n"),
        "evaluation_id": candidate.id,
        "baseline_id": baseline.id,
        "effect": found.effect,
        "verdict": found.verdict,
        "gained": found.gained[:MOST_FLIPS],
        "lost": found.lost[:MOST_FLIPS],
        "gained_count": len(found.gained),
        "lost_count": len(found.lost),
        "only_in_baseline": found.only_in_baseline,
        "only_in_candidate": found.only_in_candidate,
        "differs": found.differs,
    }


def _junit(evaluation: Evaluation, checks: Sequence[Check], failures: Sequence[Any]) -> bytes:
    """One test case for each check. The worst answers stand in the output: they fail no build by themselves."""
    failed = sum(not check.passed for check in checks)
    suites = ElementTree.Element("testsuites")
    name = _printable(evaluation.name or f"evaluation {evaluation.id}")
    suite = ElementTree.SubElement(
        suites, "testsuite", name=name, tests=str(len(checks)), failures=str(failed), errors="0", skipped="0"
    )
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="promptmill.gate", name=check.name)
        if not check.passed:
            ElementTree.SubElement(case, "failure", message=_printable(check.detail))
    output = ElementTree.SubElement(suite, "system-out")
    output.text = _printable("\n".join([*(f"{check.name}: {check.detail}" for check in checks), *map(_line, failures)]))
    return ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)


def _line(failure: Any) -> str:
    named = f" ({failure['name']})" if failure["name"] else ""
    return f"case {failure['ordinal']}{named}: {failure['score']:.3f} {failure['feedback'] or ''}"


def _printable(text: str) -> str:
    """What XML 1.0 can hold."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)

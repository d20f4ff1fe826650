"""What evaluations and optimizations of Prompt Studio have in common: how answers are scored, and whose field it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma

from app.api.content import Length
from shared.domain.datasets import RunCase
from shared.errors import field_error
from shared.models import TestCase
from shared.scoring import SCORERS, check_scorers

# Fields of /v1, and those of the original that were asked for in their place.
MOVED: Mapping[str, str] = {"/dataset": "/test_case_ids", "/version_number": "/prompt_id"}
ACCURACY = "accuracy"  # the original's word for "how much of it is right"


def test_case_ids_field() -> "ma.fields.List[Any]":
    return ma.fields.List(
        ma.fields.UUID(),
        allow_none=True,
        validate=Length(max=10_000),
        metadata={"description": "All of one dataset; if left out, those of the project's only dataset"},
    )


def scorers_for(
    given: Sequence[Mapping[str, Any]] | None, metric: str | None, cases: Sequence[TestCase | RunCase], field: str
) -> list[dict[str, Any]]:
    """The scorers that were given, else the one of the metric, else by what is expected; 422 on `field` for neither.

    An object of expected outputs is compared field by field with the JSON of the answer, anything else as text.
    """
    if given is not None:
        return check_scorers(given)
    if metric in (None, ACCURACY):
        is_object = isinstance(cases[0].expected, Mapping)
        return check_scorers([{"type": "json_fields", "lenient": True} if is_object else {"type": "exact_match"}])
    if metric not in SCORERS:
        raise field_error(field, f"must be one of {ACCURACY}, {', '.join(SCORERS)}; or give scorers")
    return check_scorers([{"type": metric}])

"""The demo with a key of one's own: the parameters that the model takes, and limits that are kept as they are said."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.demo import DATASET, Api, Limits, opening, put_prompt, start_evaluation
from tests.journeys.stack import api_alone
from tests.servers import temporary_directory

CASES = 420


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[Api]:
    """An API without workers: nothing is called."""
    with api_alone(home) as stack:
        made = Api(stack)
        made.call("POST", "/v1/datasets", {"name": "support-tickets"})
        made.call("POST", "/v1/datasets/support-tickets/cases", raw=DATASET.read_bytes(), kind="application/x-ndjson")
        yield made


def openai(model_name: str) -> dict[str, str]:
    return {"provider": "openai", "model_name": model_name}


@pytest.mark.parametrize(
    ("model_name", "params"),
    [("gpt-4o-mini", {"temperature": 0.0, "max_new_tokens": 60}), ("gpt-5-mini", {"max_new_tokens": 600})],
)
def test_the_demo_gives_a_model_the_parameters_that_it_takes(api: Api, model_name: str, params: dict[str, Any]) -> None:
    version = put_prompt(api, openai(model_name))

    stored = api.call("GET", f"/v1/prompts/ticket-triage/versions/{version}")["model"]
    assert stored == {**openai(model_name), "params": params}


def test_the_evaluation_is_under_the_ceiling_too_and_both_shares_make_what_the_panel_promises(
    api: Api, home: Path
) -> None:
    version = put_prompt(api, openai("gpt-4o-mini"))

    started, limits = start_evaluation(api, version, CASES)

    usd, calls = budget_of(home, started)
    assert (usd, calls) == (limits.evaluation["max_cost_usd"], 504)
    assert usd + limits.search["max_cost_usd"] == 1.0
    assert "Nothing is spent beyond 1.00 USD" in opening(api.stack, openai("gpt-4o-mini"), limits)


def test_without_a_known_price_the_panel_promises_calls_and_no_dollars(api: Api, home: Path) -> None:
    version = put_prompt(api, openai("a-model-of-my-own"))

    started, limits = start_evaluation(api, version, CASES)

    panel = opening(api.stack, openai("a-model-of-my-own"), limits)
    assert limits == Limits.of(CASES, has_price=False)
    assert budget_of(home, started) == (None, 504)
    assert "no limit in USD holds" in panel
    assert "504 to score the baseline, 4000 and 400 for proposals to search" in panel
    assert "Nothing is spent beyond" not in panel


def budget_of(home: Path, evaluation: dict[str, Any]) -> tuple[float | None, int]:
    """(USD, task calls) that this evaluation may use."""
    with contextlib.closing(sqlite3.connect(home / "promptmill.db")) as connection:
        nano, calls = connection.execute(
            "SELECT limit_nano, limit_task_calls FROM budgets WHERE REPLACE(subject_id, '-', '') = ?",
            (evaluation["evaluation_id"].replace("-", ""),),
        ).fetchone()
    return None if nano is None else nano / 1e9, calls

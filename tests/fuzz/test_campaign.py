"""schemathesis over /openapi.json finds no 5xx, no status, type or body that is not documented, and no laxity.

The short form; the long one is `make fuzz` (docs/how-to/fuzz-the-api.md).
"""

import os
import sys
from collections.abc import Iterator
from functools import partial

import pytest
from flask.testing import FlaskClient

from app import rates
from shared.config import settings
from tests.api.routes import seed
from tests.fuzz import campaign
from tests.fuzz.aim import Aim
from tests.fuzz.options import Options
from tests.support import Api, Drain


@pytest.fixture
def impatient(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody works here, so nobody should wait for an answer; and every request is answered."""
    monkeypatch.setenv("PROMPTMILL_RUN_WAIT_SECONDS", "0")
    monkeypatch.setenv("PROMPTMILL_RATE_LIMIT", "off")
    settings.cache_clear()
    rates.reset()
    yield
    monkeypatch.undo()
    settings.cache_clear()
    rates.reset()


@pytest.mark.timeout(0 if Options.stored(os.environ).is_long else 900)  # each operation, many times
def test_every_answer_to_every_request_is_as_documented(
    api: Api, drain: Drain, flask_client: FlaskClient, impatient: None, database: str
) -> None:
    seed(api, drain)
    options = Options.stored(os.environ)

    # In the short form each database gets what it may answer differently to: what is wrong in a request is refused
    # before either is asked, and PostgreSQL takes less than SQLite does.
    is_sqlite = "sqlite" in database
    shares = {} if options.is_long else {"wrong": is_sqlite, "at_random": not is_sqlite}
    tell = partial(print, file=sys.stderr, flush=True) if options.is_long else str
    report = campaign.run(flask_client.application, api, options, tell=tell, **shares)

    if options.is_long:
        campaign.show(report, database)
    assert not report.distinct(), "\n".join(map(str, report.distinct()[:20]))
    assert options.only or report.chains >= options.chains
    assert options.only or not report.never_reached(), (
        f"no request got as far as the rows of {report.never_reached()}: seed what it needs, and give a body that"
        " works, in tests/api/routes.py"
    )


def test_an_address_stays_as_it_was_when_a_part_of_it_is_emptied(
    api: Api, drain: Drain, flask_client: FlaskClient
) -> None:
    seed(api, drain)
    aim = Aim(flask_client.application, api)
    aim.look()
    api.expect(200, "PATCH", "/v1/prompts/triage", {"owner_team": "a/b", "category": ""})

    aim.look()

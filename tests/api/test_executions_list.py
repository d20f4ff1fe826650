"""GET /v1/executions: every filter, narrow rows, and pages that hold still."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain.tenants import Caller
from tests.executed import MONDAY, insert_executions, insert_feedback, make_versions
from tests.support import Api, Drain, make_prompt, pointers, run_body


@pytest.fixture
def statements(database: str) -> Iterator[list[str]]:
    """Every statement that is sent from now on."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    sa.event.listen(db.engine(), "before_cursor_execute", note)
    yield sent
    sa.event.remove(db.engine(), "before_cursor_execute", note)


def listed(api: Api, query: str = "") -> list[str]:
    return [row["execution_id"] for row in api.expect(200, "GET", f"/v1/executions{query}")["data"]]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("status=failed", {"state": "failed"}),
        ("environment=prod", {"environment": "prod"}),
        ("purpose=judge", {"purpose": "judge"}),
        ("correlation_id=c-1", {"correlation_id": "c-1"}),
        ("provider=openai", {"provider": "openai"}),
        ("model_name=gpt-4o", {"model_name": "gpt-4o"}),
        ("created_by=eve", {"created_by": "eve"}),
        ("error_type=timeout", {"error_type": "timeout"}),
        ("min_latency_ms=500", {"latency_ms": 500}),
        ("from=2026-06-02T00:00:00Z", {"created_at": MONDAY + timedelta(days=1)}),
        ("to=2026-06-01T00:00:00Z", {"created_at": MONDAY - timedelta(microseconds=1)}),
        ("from=2026-06-02T02:00:00%2B02:00&to=2026-06-03T00:00:00Z", {"created_at": MONDAY + timedelta(days=1)}),
    ],
)
def test_a_filter_leaves_only_what_matches(api: Api, admin: Caller, query: str, fields: dict[str, Any]) -> None:
    other = insert_executions(admin, [{"latency_ms": 499}, {"created_at": MONDAY}])
    (wanted,) = insert_executions(admin, [fields])

    assert listed(api, f"?{query}") == [str(wanted)]
    assert set(listed(api)) == {str(wanted), *map(str, other)}


def test_a_version_is_named_by_its_prompt_and_number(api: Api, admin: Caller) -> None:
    first, second = make_versions(admin, 2)
    (of_first,) = insert_executions(admin, [{}], version=first)
    (of_second,) = insert_executions(admin, [{"created_at": MONDAY + timedelta(1)}], version=second)
    insert_executions(admin, [{}], version=make_versions(admin, name="other")[0])

    assert listed(api, "?prompt_name=greeter") == [str(of_second), str(of_first)]
    assert listed(api, "?prompt_name=greeter&version_number=1") == [str(of_first)]
    assert pointers(api.get("/v1/executions?version_number=1")) == ["?version_number"]
    assert pointers(api.get("/v1/executions?prompt_name=greeter&version_number=9")) == ["?version_number"]


def test_feedback_divides_executions_into_those_that_have_it_and_those_that_do_not(api: Api, admin: Caller) -> None:
    rated, other = insert_executions(admin, [{}, {}])
    insert_feedback(admin, {rated: 1.0})

    assert listed(api, "?has_feedback=true") == [str(rated)]
    assert listed(api, "?has_feedback=false") == [str(other)]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("status=done", "?status"),
        ("purpose=fun", "?purpose"),
        ("from=2026-06-02", "?from"),
        ("to=2026-06-02T00:00:00", "?to"),
        ("min_latency_ms=-1", "?min_latency_ms"),
        ("min_latency_ms=1.5", "?min_latency_ms"),
        ("has_feedback=1", "?has_feedback"),
        ("include=everything", "?include"),
        ("created_from=2026-06-02T00:00:00Z", "?created_from"),
        ("cursor=nonsense", "?cursor"),
        ("limit=101", "?limit"),
    ],
)
def test_a_filter_that_cannot_be_is_a_422_that_names_it(api: Api, query: str, pointer: str) -> None:
    answer = api.get(f"/v1/executions?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [pointer])


def test_a_row_is_narrow_and_reads_no_text_unless_it_is_asked_for(api: Api, drain: Drain) -> None:
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    drain()

    (narrow,) = api.expect(200, "GET", "/v1/executions")["data"]
    (wide,) = api.expect(200, "GET", "/v1/executions?include=texts")["data"]

    texts = wide.pop("texts")
    assert narrow == wide
    assert not {"messages", "response_text", "variables", "params", "texts"} & set(narrow)
    assert (narrow["prompt_name"], narrow["version_number"]) == ("greeter", 1)
    assert texts["messages"] == [{"role": "user", "content": "Say hello to Ada."}]
    assert (texts["variables"], bool(texts["response_text"])) == ({"name": "Ada"}, True)


def test_a_page_with_texts_is_a_short_one(api: Api, admin: Caller) -> None:
    insert_executions(admin, [{}] * 25)

    first = api.expect(200, "GET", "/v1/executions?include=texts&limit=100")
    rest = api.expect(200, "GET", f"/v1/executions?include=texts&cursor={first['next_cursor']}")

    assert (len(first["data"]), len(rest["data"]), rest["next_cursor"]) == (20, 5, None)
    assert len(listed(api, "?limit=100")) == 25


def test_the_statement_of_a_narrow_list_names_no_text(api: Api, admin: Caller, statements: list[str]) -> None:
    insert_executions(admin, [{}])

    api.expect(200, "GET", "/v1/executions")

    (sent,) = [one for one in statements if "ORDER BY executions.created_at" in one]
    assert "latency_ms" in sent
    assert "messages" not in sent
    assert "response_text" not in sent


def test_pages_hold_still_while_rows_of_the_same_moment_are_added(api: Api, admin: Caller) -> None:
    before = insert_executions(admin, [{"environment": "prod"}] * 5)
    first = api.expect(200, "GET", "/v1/executions?environment=prod&limit=2")
    insert_executions(admin, [{"environment": "prod", "created_at": MONDAY + timedelta(1)}, {}])

    seen = [row["execution_id"] for row in first["data"]]
    cursor = first["next_cursor"]
    while cursor:
        page = api.expect(200, "GET", f"/v1/executions?environment=prod&limit=2&cursor={cursor}")
        seen += [row["execution_id"] for row in page["data"]]
        cursor = page["next_cursor"]

    assert seen == [str(id_) for id_ in sorted(before, reverse=True)]


def test_a_stranger_finds_nothing_by_any_filter(api: Api, admin: Caller, as_user: Callable[..., Api]) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, [{"correlation_id": "c-1"}], version=version)
    stranger = as_user(workspace="elsewhere")

    assert listed(stranger, "?correlation_id=c-1") == []
    assert stranger.get("/v1/executions?prompt_name=greeter").status_code == 404

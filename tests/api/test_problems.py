"""Every error is an RFC 9457 problem that says which status, which code and which field."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import db
from shared.models import ApiKey, Prompt
from tests.rows import count, everything
from tests.servers import free_port, wait_until
from tests.support import API_KEY, Api, make_prompt, pointers, run_body

KEY = {"X-API-Key": API_KEY}


def assert_problem(answer: TestResponse, status: int, code: str) -> Any:
    """The problem, which has everything that a problem must have."""
    problem = answer.get_json()
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), problem
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:promptmill:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    return problem


def send(api: Api, raw: bytes, **options: Any) -> TestResponse:
    """A raw body to a route that takes JSON."""
    return api.put("/v1/prompts/greeter", data=raw, content_type="application/json", **options)


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1/projects/", "/v1/executions/no-uuid", "/v2/projects"])
def test_an_unknown_route_is_a_404(api: Api, path: str) -> None:
    problem = assert_problem(api.get(path), 404, "not_found")

    assert problem["detail"] == "nothing is at this address"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/projects", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", "/v1/prompts/greeter", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"}),
        ("PATCH", "/health", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_method_that_a_route_does_not_have_is_a_405_that_says_which_it_has(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    answer = api.request(method, path)

    assert_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"{", "invalid JSON"),
        (b"{'name': 1}", "invalid JSON"),
        (b'{"name": 1,}', "invalid JSON"),
        (b"hello", "invalid JSON"),
        (b"\n", "invalid JSON"),
        (b'{"a": 1} {"b": 2}', "invalid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "invalid JSON"),
        (b'{"description": "\xff"}', "invalid UTF-8 at byte 17"),
        (b'{"description": "\xed\xa0\x80"}', "invalid UTF-8 at byte 17"),
        (b'{"seed": ' + b"9" * 5_000 + b"}", "invalid JSON: a number has too many digits"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_400(api: Api, raw: bytes, detail: str) -> None:
    problem = assert_problem(send(api, raw), 400, "bad_request")

    assert detail in problem["detail"]
    assert [error["pointer"] for error in problem["errors"]] == [""]
    assert count(Prompt) == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_json_must_be_sent_as_json(api: Api, kind: str) -> None:
    answer = api.put("/v1/prompts/greeter", data=b'{"template_source": "a"}', content_type=kind)

    problem = assert_problem(answer, 415, "unsupported_media_type")
    assert "application/json" in problem["detail"]
    assert pointers(answer) == ["Content-Type"]


@pytest.mark.parametrize("path", ["/v1/prompts", "/v1/datasets/tickets/cases"])
def test_a_compressed_body_is_a_415(api: Api, path: str) -> None:
    answer = api.post(path, [{"inputs": {"a": 1}}], headers={"Content-Encoding": "gzip"})

    assert_problem(answer, 415, "unsupported_media_type")
    assert pointers(answer) == ["Content-Encoding"]


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"description": "a", "description": "b"}', "/description"),
        (b'{"model": {"params": {"seed": 1, "seed": 1}}}', "/model/params/seed"),
    ],
)
def test_a_key_that_is_given_twice_is_a_422_that_names_it(api: Api, raw: bytes, pointer: str) -> None:
    answer = send(api, raw)

    assert_problem(answer, 422, "invalid_fields")
    assert pointers(answer) == [pointer]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/merge-patch+json"])
def test_json_may_be_sent_under_its_other_names(api: Api, kind: str) -> None:
    answer = api.put("/v1/prompts/greeter", data=b'{"template_source": "a"}', content_type=kind)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"description": %s}', "/description"),
        ('{"model": {"params": {"temperature": %s}}}', "/model/params/temperature"),
        ('{"tags": ["a", %s]}', "/tags/1"),
        ("%s", ""),
    ],
)
def test_a_number_that_is_not_finite_is_a_422_that_names_it(api: Api, body: str, pointer: str) -> None:
    for value in ("NaN", "Infinity", "-Infinity", "1e999"):
        answer = send(api, (body % value).encode())

        assert_problem(answer, 422, "invalid_fields")
        assert pointers(answer) == [pointer]


@pytest.mark.parametrize("value", ["NaN", r'"\u0000"', r'"\ud800"', r'"a\udfffb"'])
def test_a_value_that_no_database_holds_is_named_deep_inside_the_variables(api: Api, value: str) -> None:
    make_prompt(api)
    before = everything()
    raw = json.dumps(run_body(variables={"name": "Ada", "more": [{"a/b": {"c~d": ["ok", "HERE"]}}]}))

    answer = api.post(
        "/v1/executions:submit", data=raw.replace('"HERE"', value).encode(), content_type="application/json"
    )

    assert_problem(answer, 422, "invalid_fields")
    assert pointers(answer) == ["/variables/more/0/a~1b/c~0d/1"]
    assert everything() == before


@pytest.mark.parametrize(
    ("raw", "pointer", "detail"),
    [
        (rb'{"description": "a\u0000b"}', "/description", "NUL"),
        (rb'{"description": "\ud800"}', "/description", "surrogate"),
        (rb'{"description": "\udc00\ud800"}', "/description", "surrogate"),
        (rb'{"a\u0000": 1}', "", "a key holds a NUL"),
        (rb'{"model": {"\ud800": 1}}', "/model", "a key holds half"),
    ],
)
def test_text_that_no_database_holds_is_a_422_that_names_it(api: Api, raw: bytes, pointer: str, detail: str) -> None:
    answer = send(api, raw)

    problem = assert_problem(answer, 422, "invalid_fields")
    assert pointers(answer) == [pointer]
    assert detail in problem["detail"]


def test_a_whole_surrogate_pair_is_a_character(api: Api) -> None:
    api.put("/v1/prompts/greeter", data=rb'{"template_source": "\ud83d\ude42"}', content_type="application/json")

    assert api.expect(200, "GET", "/v1/prompts/greeter/versions/1")["template_source"] == "🙂"


def test_a_body_may_nest_fifty_deep_and_no_deeper(api: Api) -> None:
    make_prompt(api, template="{{ deep }}")

    def nested(depth: int) -> TestResponse:
        deep: Any = 1
        for _ in range(depth - 1):  # the body itself is one, and the variables are another
            deep = [deep]
        return api.post("/v1/executions:submit", run_body(variables={"deep": deep}))

    allowed, refused = nested(49), nested(50)

    assert allowed.status_code == 202
    assert "nested deeper than 50" in assert_problem(refused, 422, "invalid_fields")["detail"]


@pytest.mark.parametrize("value", [True, False, "5", 5.0, 5.5, None, [5], 2**63])
def test_only_an_integer_is_an_integer(api: Api, value: Any) -> None:
    make_prompt(api)

    answer = api.put("/v1/prompts/greeter/labels/staging", {"version_number": value})

    assert_problem(answer, 422, "invalid_fields")
    assert pointers(answer) == ["/version_number"]


def test_every_wrong_field_is_named(api: Api) -> None:
    body = {"template_source": 5, "tags": [1, "a", 2], "model": {"provider": "simulated"}, "colour": "red"}

    answer = api.put("/v1/prompts/greeter", body)

    assert_problem(answer, 422, "invalid_fields")
    assert sorted(pointers(answer)) == ["/colour", "/model/model_name", "/tags/0", "/tags/2", "/template_source"]


def test_a_body_of_4_mb_is_read_and_a_larger_one_is_a_413(api: Api) -> None:
    frame = b'{"description": ""}'
    largest = b'{"description": "' + b"x" * (4_000_000 - len(frame)) + b'"}'

    read, refused = send(api, largest), send(api, largest + b" ")

    assert pointers(read) == ["/description"]
    assert "4,000,000" in assert_problem(refused, 413, "body_too_large")["detail"]
    assert pointers(refused) == [""]
    assert assert_problem(send(api, b"x" * 5_000_000), 413, "body_too_large")


def test_a_bug_is_a_500_that_shows_nothing_of_the_exception(api: Api) -> None:
    # A row that no request can write makes authentication fail with an exception of Python's.
    with db.transaction() as session:
        session.execute(sa.update(ApiKey).values(project_ids=["secret-that-is-no-uuid"]))

    answer = api.get("/v1/projects")

    problem = assert_problem(answer, 500, "internal_error")
    text = answer.get_data(as_text=True)
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert not [word for word in ("secret", "uuid", "UUID", "hexadecimal", "ValueError", "Traceback") if word in text]


@pytest.fixture(params=["sqlite", "postgresql"])
def unreachable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A database that cannot be connected to."""
    urls = {
        "sqlite": f"sqlite:///{tmp_path}/no-such-directory/secret.db",
        "postgresql": f"postgresql+psycopg://secret-user:secret-password@127.0.0.1:{free_port()}/secret",
    }
    db.connect(urls[request.param])
    yield
    db.disconnect()


def test_a_database_out_of_reach_is_a_503_that_shows_nothing_of_it(
    unreachable: None, flask_client: FlaskClient
) -> None:
    answer = flask_client.get("/v1/projects", headers=KEY)

    assert_problem(answer, 503, "database_unavailable")
    assert answer.headers["Retry-After"] == "2"
    text = answer.get_data(as_text=True)
    assert not [word for word in ("secret", "127.0.0.1", "sqlite", "psycopg", "no-such", "Error") if word in text]


def test_a_connection_that_ends_within_a_request_is_a_503(api: Api) -> None:
    """As that of a process that was paused in its transaction: PostgreSQL ends it, and calls that an internal error."""
    lost: list[Any] = []

    def lose(connection: Any, cursor: Any, *statement: Any) -> None:
        if lost:
            return
        lost.append(connection.connection.driver_connection)
        if connection.dialect.name == "sqlite":
            lost[0].close()
            return
        lost[0].execute("SET idle_in_transaction_session_timeout = '1ms'")
        with psycopg.connect(lost[0].info.dsn, autocommit=True) as other:
            alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: other.execute(alive, [lost[0].info.backend_pid]).fetchone() == (0,), "it is gone")

    sa.event.listen(db.engine(), "after_cursor_execute", lose)
    answer = api.get("/v1/projects")
    sa.event.remove(db.engine(), "after_cursor_execute", lose)

    assert lost
    assert_problem(answer, 503, "database_unavailable")
    assert api.get("/v1/projects").status_code == 200


def test_the_process_is_healthy_without_its_database(unreachable: None, flask_client: FlaskClient) -> None:
    assert flask_client.get("/health").get_json() == {"status": "healthy"}


@pytest.mark.parametrize("given", ["a", "order-42", "trace:1.2_3", "x" * 64])
def test_a_sane_request_id_is_echoed(api: Api, given: str) -> None:
    answer = api.get("/v1/nothing", headers={"X-Request-Id": given})

    assert answer.headers["X-Request-Id"] == answer.get_json()["request_id"] == given
    assert api.get("/v1/projects", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 65, "a b", "a;b", "<script>", '"', "a\tb", "🙂".encode().decode("latin-1")]
)
def test_any_other_request_id_is_replaced(api: Api, given: str) -> None:
    answer = api.get("/v1/projects", headers={"X-Request-Id": given})

    assert answer.headers["X-Request-Id"] != given
    assert len(answer.headers["X-Request-Id"]) == 32


def test_every_request_gets_an_id_of_its_own(api: Api) -> None:
    ids = {api.get("/v1/projects").headers["X-Request-Id"] for _ in range(5)}

    assert len(ids) == 5


def test_no_answer_may_be_sniffed_for_another_type(api: Api) -> None:
    assert api.get("/v1/projects").headers["X-Content-Type-Options"] == "nosniff"
    assert api.get("/v1/nothing").headers["X-Content-Type-Options"] == "nosniff"

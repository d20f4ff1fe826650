"""Whatever goes wrong below the prefix is in the envelope, with the status and the code that /v1 has for it."""

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.models import Version
from tests.compat.studio import NOBODY, PREFIX, Studio
from tests.support import API_KEY, Api


def test_an_error_has_the_status_the_code_and_the_fields_of_v1(api: Api) -> None:
    ours = api.post("/v1/projects", {"name": "a", "status": "gone"})

    theirs = api.post(f"{PREFIX}/projects/", {"name": "a", "status": "gone"})

    problem, body = ours.get_json(), theirs.get_json()
    assert theirs.status_code == ours.status_code == 422
    assert theirs.mimetype == "application/json"
    assert body == {
        "success": False,
        "data": None,
        "error": problem["detail"],
        "error_code": problem["code"],
        "metadata": {"request_id": theirs.headers["X-Request-Id"], "errors": problem["errors"]},
        "detail": problem["detail"],
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/projects/get/" + NOBODY, None, 404, "not_found"),
        ("GET", "/nowhere", None, 404, "not_found"),
        ("DELETE", "/projects/", None, 405, "method_not_allowed"),
        ("POST", "/projects/", b"{", 400, "bad_request"),
        ("POST", "/projects/", b"\xff", 400, "bad_request"),
    ],
)
def test_every_kind_of_error_is_in_the_envelope(
    api: Api, flask_client: FlaskClient, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    answer = flask_client.open(
        PREFIX + path, method=method, data=body, content_type="application/json", headers={"X-API-Key": API_KEY}
    )

    found = answer.get_json()
    assert (answer.status_code, found["error_code"], found["success"], found["data"]) == (status, code, False, None)


def test_without_a_key_nothing_is_told(api: Api, flask_client: FlaskClient) -> None:
    answer = flask_client.get(f"{PREFIX}/projects")

    assert (answer.status_code, answer.get_json()["error_code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_either_header_of_the_original_is_a_key(api: Api, flask_client: FlaskClient) -> None:
    for headers in ({"X-API-KEY": API_KEY, "X-Client-Id": "me"}, {"Authorization": f"Bearer {API_KEY}"}):
        assert flask_client.get(f"{PREFIX}/projects", headers=headers).status_code == 200


def test_an_error_of_v1_stays_a_problem(api: Api) -> None:
    assert api.get("/v1/nowhere").mimetype == "application/problem+json"
    assert api.get("/api/v1/prompt-studios").mimetype == "application/problem+json"


def test_an_internal_error_is_a_500_that_says_nothing_of_its_cause(studio: Studio) -> None:
    made = studio.prompt(studio.project())
    with db.transaction() as session:
        session.execute(sa.update(Version).values(content={"nonsense": 1}))  # which no code of ours writes

    answer = studio.expect(500, "GET", f"/prompts/get/{made['id']}")

    assert answer["error_code"] == "internal_error"
    assert "messages" not in str(answer)

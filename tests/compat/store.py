"""What the tests of Prompt Store's addresses share."""

from typing import Any

from werkzeug.test import TestResponse

from tests.support import Api

STORE = "/api/v1"


def data(api: Api, method: str, path: str, body: Any = None, *, status: int = 200, **options: Any) -> Any:
    """The `data` of an answer, whose envelope says success."""
    answer = api.expect(status, method, STORE + path, body, **options)
    assert list(answer) == ["success", "message", "data", "timestamp", "request_id"]
    assert answer["success"] is True
    return answer["data"]


def refusal(answer: TestResponse) -> tuple[int, str, list[str]]:
    """(status, error_code, the fields that are named) of an error, whose envelope says so."""
    body = answer.get_json()
    assert (body["success"], answer.mimetype) == (False, "application/json")
    assert {"message", "error_code", "details"} <= set(body)
    return answer.status_code, body["error_code"], [error["pointer"] for error in body["details"]["errors"]]


def make(api: Api, name: str = "blog_intro", **fields: Any) -> Any:
    body = {"name": name, "category": "writing", "content": "Write a blog introduction", **fields}
    return data(api, "POST", "/prompts", body, status=201)


def at(prompt: Any, rest: str = "") -> str:
    return f"/prompts/{prompt['id']}{rest}"

"""Reading a version by label is remembered, and never older than a second."""

import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from app import cached
from shared import db
from shared.domain import labels, projects, prompts
from shared.domain.names import VersionChoice
from shared.domain.tenants import Caller
from shared.models import Prompt, Role
from tests.servers import RedisServer
from tests.support import Api, make_prompt

PRODUCTION = "/v1/prompts/greeter/versions/production"


def status_of(api: Api, path: str = PRODUCTION, **options: object) -> str:
    answer = api.request("GET", path, **options)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.headers["Cache-Status"]


def text_of(api: Api, path: str = PRODUCTION) -> str:
    return str(api.expect(200, "GET", path)["template_source"])


def test_the_second_read_is_answered_from_this_process(api: Api) -> None:
    make_prompt(api, template="one")

    answers = [api.request("GET", PRODUCTION) for _ in range(2)]

    assert [answer.headers["Cache-Status"] for answer in answers] == [
        "promptmill; fwd=miss",
        "promptmill; hit; detail=local",
    ]
    assert answers[0].get_json() == answers[1].get_json()
    assert answers[0].get_json()["template_source"] == "one"

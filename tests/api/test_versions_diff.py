"""GET /v1/prompts/{name}/diff: two versions by number, by label, or the latest with the one before it."""

from collections.abc import Callable

import pytest

from shared.models import Role
from tests.support import Api, pointers


@pytest.fixture
def greeter(api: Api) -> str:
    """Three versions; production is at 2."""
    for source in ("Hello", "Hello {{ name }}", "Hello {{ who }}!"):
        body = {"template_source": source, "set_active": source == "Hello {{ name }}"}
        api.expect(200, "PUT", "/v1/prompts/greeter", body)
    return "/v1/prompts/greeter/diff"


def test_the_latest_version_is_compared_with_the_one_before(api: Api, greeter: str) -> None:
    found = api.expect(200, "GET", greeter)

    assert found == {
        "from_version_number": 2,
        "to_version_number": 3,
        "identical": False,
        "unified": (
            "--- greeter v2\n+++ greeter v3\n@@ -1,2 +1,2 @@\n template:\n-  Hello {{ name }}\n+  Hello {{ who }}!\n"
        ),
        "structured": {
            "changes": [
                {
                    "field": "template_source",
                    "key": None,
                    "change": "changed",
                    "before": "Hello {{ name }}",
                    "after": "Hello {{ who }}!",
                }
            ],
            "variables": {"added": ["who"], "removed": ["name"]},
        },
    }


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("?from=1&to=3", (1, 3)),
        ("?from=v3&to=v1", (3, 1)),
        ("?from=production", (2, 3)),
        ("?from=latest&to=production", (3, 2)),
        ("?to=2", (1, 2)),
        ("?to=1", (None, 1)),
    ],
)
def test_each_side_is_named_by_number_or_label(
    api: Api, greeter: str, query: str, numbers: tuple[int | None, int]
) -> None:
    found = api.expect(200, "GET", f"{greeter}{query}")

    assert (found["from_version_number"], found["to_version_number"]) == numbers
    assert not found["identical"]


def test_a_version_differs_in_nothing_from_itself(api: Api, greeter: str) -> None:
    found = api.expect(200, "GET", f"{greeter}?from=production&to=2")

    assert (found["identical"], found["unified"]) == (True, "")
    assert found["structured"] == {"changes": [], "variables": {"added": [], "removed": []}}


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("?from=4", 404, ["?from"]),
        ("?to=staging", 404, ["?to"]),
        ("?to=0", 404, ["?to"]),
        ("?from=", 422, ["?from"]),
        ("?from=1&from=2", 422, ["?from"]),
        ("?project=nobody", 404, ["?project"]),
    ],
)
def test_a_version_that_is_not_there_is_named(
    api: Api, greeter: str, query: str, status: int, named: list[str]
) -> None:
    answer = api.get(f"{greeter}{query}")

    assert (answer.status_code, pointers(answer)) == (status, named)


def test_a_viewer_may_compare_and_nobody_of_another_workspace_may(as_user: Callable[..., Api], greeter: str) -> None:
    assert as_user(role=Role.VIEWER).get(greeter).status_code == 200
    assert as_user(workspace="elsewhere").get(greeter).status_code == 404

"""GET /v1/prompts/{name} and its versions: by number, by label, `v3`, `latest`."""

from typing import Any

import pytest

from shared.hashing import sha256
from tests.support import Api, pointers


@pytest.fixture
def greeter(api: Api) -> str:
    """A prompt with three versions; production is at 2."""
    for source in ("one", "two", "three"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source, "set_active": source == "two"})
    return "/v1/prompts/greeter"


def test_a_prompt_shows_its_labels_and_its_active_version(api: Api, greeter: str) -> None:
    prompt = api.expect(200, "GET", greeter)

    (label,) = prompt["labels"]
    assert (label["label"], label["version_number"], label["moved_by"]) == ("production", 2, "admin")
    version = api.expect(200, "GET", f"{greeter}/versions/2")
    of_older_clients = {"checksum_hash": version["template_hash"], "status": "active"}
    assert prompt["active_version"] == version | of_older_clients
    assert prompt["latest_version_number"] == 3
    assert (prompt["mode"], prompt["lifecycle"]) == ("full", "draft")


def test_a_prompt_that_was_never_activated_has_no_active_version(api: Api) -> None:
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "one"})

    prompt = api.expect(200, "GET", "/v1/prompts/greeter")

    assert prompt["active_version"] is None
    assert prompt["labels"] == []


def test_a_version_shows_its_content_and_its_hashes(api: Api) -> None:
    source = "{{ greeting }}, {{ name }}!\n"
    made = api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source})

    version = api.expect(200, "GET", "/v1/prompts/greeter/versions/1")

    assert version["version_id"] == made["version"]["version_id"]
    assert version["template_source"] == source
    assert version["template_hash"] == sha256(source)
    assert version["variables"] == ["greeting", "name"]
    assert (version["messages"], version["model"]) == (None, None)


@pytest.mark.parametrize(
    ("wanted", "number"), [("1", 1), ("3", 3), ("v3", 3), ("v1", 1), ("latest", 3), ("production", 2)]
)
def test_a_version_is_read_by_number_label_or_latest(api: Api, greeter: str, wanted: str, number: int) -> None:
    version = api.expect(200, "GET", f"{greeter}/versions/{wanted}")

    assert version["version_number"] == number


@pytest.mark.parametrize(
    "wanted",
    [
        *("4", "0", "v4", "v0", "999999999", "9" * 10, "v" + "9" * 10, "9" * 5_000),
        *("staging", "Production", "vv1", "-1", "1.0", "a%00b", "x" * 300),
    ],
)
def test_a_version_that_does_not_exist_is_a_404(api: Api, greeter: str, wanted: str) -> None:
    answer = api.get(f"{greeter}/versions/{wanted}")

    assert (answer.status_code, answer.get_json()["code"], pointers(answer)) == (404, "not_found", [])


@pytest.mark.parametrize("name", ["nobody", "Greeter", "a%00b", "a%20b", "00000000-0000-0000-0000-000000000000", "a@b"])
def test_a_prompt_that_does_not_exist_is_a_404_with_all_that_is_below_it(api: Api, greeter: str, name: str) -> None:
    answers = [api.get(f"/v1/prompts/{name}{rest}") for rest in ("", "/versions", "/versions/1", "/labels")]

    assert {(answer.status_code, answer.get_json()["code"]) for answer in answers} == {(404, "not_found")}


def test_text_of_any_script_comes_back_as_it_went_in(api: Api) -> None:
    source = 'Grüße, 世界 🙂 \u2028 \\ " {{ name }}\r\n'
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source, "description": source, "tags": ["世"]})

    prompt: Any = api.expect(200, "GET", "/v1/prompts/greeter")
    version = api.expect(200, "GET", "/v1/prompts/greeter/versions/1")

    assert version["template_source"] == prompt["description"] == source
    assert prompt["tags"] == ["世"]


def test_versions_are_listed_from_either_end(api: Api, greeter: str) -> None:
    def listed(query: str) -> list[int]:
        return [version["version_number"] for version in api.expect(200, "GET", f"{greeter}/versions{query}")["data"]]

    first = api.expect(200, "GET", f"{greeter}/versions?order=desc&limit=2")

    assert (listed(""), listed("?order=asc"), listed("?order=desc")) == ([1, 2, 3], [1, 2, 3], [3, 2, 1])
    assert [version["version_number"] for version in first["data"]] == [3, 2]
    assert listed(f"?order=desc&limit=2&cursor={first['next_cursor']}") == [1]


def test_versions_of_one_text_are_found_by_its_hash(api: Api, greeter: str) -> None:
    tuned = {"template_source": "two", "model": {"provider": "simulated", "model_name": "simulated-small"}}
    api.expect(200, "PUT", greeter, tuned)

    found = api.expect(200, "GET", f"{greeter}/versions?template_hash={sha256('two')}")["data"]

    assert [version["version_number"] for version in found] == [2, 4]
    assert api.expect(200, "GET", f"{greeter}/versions?template_hash={sha256('four')}")["data"] == []


@pytest.mark.parametrize("query", ["order=newest", "order=", "template_hash=abc", f"template_hash={'A' * 64}"])
def test_an_order_or_a_hash_that_makes_no_sense_is_named(api: Api, greeter: str, query: str) -> None:
    answer = api.get(f"{greeter}/versions?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [f"?{query.partition('=')[0]}"])

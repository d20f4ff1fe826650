"""Reading a version by label is remembered, and never differs from what the database would say."""

from collections.abc import Callable, Iterator

import pytest

from app import cached
from shared import db
from shared.domain import prompts
from shared.domain.content import check_content
from shared.domain.tenants import Caller
from shared.models import Prompt
from tests.servers import RedisServer
from tests.support import Api, make_prompt

VERSIONS = "/v1/prompts/greeter/versions"
PRODUCTION, LATEST = (f"{VERSIONS}/{label}" for label in ("production", "latest"))
MISS, LOCAL, REDIS = (f"promptmill; {how}" for how in ("fwd=miss", "hit; detail=local", "hit; detail=redis"))


@pytest.fixture(autouse=True)
def process(api: Api) -> Iterator[None]:
    """A process that has just begun."""
    cached.use_registry(None)
    yield
    cached.use_registry(None)


def how(api: Api, path: str = PRODUCTION, **options: object) -> str:
    answer = api.request("GET", path, **options)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.headers["Cache-Status"]


def text(api: Api, path: str = PRODUCTION) -> str:
    return str(api.expect(200, "GET", path)["template_source"])


def greeter(api: Api, *templates: str, **fields: object) -> None:
    """A prompt with these versions, the last of which is `production`; and it was read."""
    for template in templates or ("one",):
        make_prompt(api, template=template, **fields)
    for path in (PRODUCTION, LATEST, PRODUCTION):
        api.request("GET", path)


def test_the_second_read_is_answered_from_this_process_and_is_the_same(api: Api) -> None:
    make_prompt(api, template="one")

    first, second = (api.request("GET", PRODUCTION) for _ in range(2))

    assert [answer.headers["Cache-Status"] for answer in (first, second)] == [MISS, LOCAL]
    assert first.get_data() == second.get_data()
    assert first.get_json()["template_source"] == "one"


def test_no_cache_asks_the_database(api: Api) -> None:
    greeter(api)

    assert how(api) == LOCAL
    assert how(api, headers={"Cache-Control": "no-cache"}) == MISS


def test_who_has_it_already_is_told_so(api: Api) -> None:
    greeter(api, "one")
    etag = api.request("GET", PRODUCTION).headers["ETag"]

    same = api.request("GET", PRODUCTION, headers={"If-None-Match": etag})
    make_prompt(api, template="two")
    other = api.request("GET", PRODUCTION, headers={"If-None-Match": etag})

    assert (same.status_code, same.get_data()) == (304, b"")
    assert (other.status_code, other.get_json()["template_source"]) == (200, "two")


CHANGES: dict[str, tuple[Callable[[Api], object], str | int]] = {
    "put": (lambda api: make_prompt(api, template="three"), "three"),
    "move": (lambda api: api.expect(200, "PUT", f"{LABELS}/production", {"version_number": 1}), "one"),
    "rollback": (lambda api: api.expect(200, "POST", "/v1/prompts/greeter/rollback", {"to": 1}), "one"),
    "label deleted": (lambda api: api.expect(204, "DELETE", f"{LABELS}/production"), 404),
    "renamed": (lambda api: api.expect(200, "PATCH", "/v1/prompts/greeter", {"name": "waver"}), 404),
    "deleted": (lambda api: api.expect(200, "DELETE", "/v1/prompts/greeter"), 404),
    "deleted for good": (lambda api: api.expect(200, "DELETE", "/v1/prompts/greeter?permanent=true"), 404),
}
LABELS = "/v1/prompts/greeter/labels"


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_is_changed_here_is_read_changed(api: Api, change: str) -> None:
    greeter(api, "one", "two")
    before = how(api)

    CHANGES[change][0](api)

    answer = api.request("GET", PRODUCTION)
    expected = CHANGES[change][1]
    assert before == LOCAL
    assert expected in (answer.status_code, answer.get_json().get("template_source"))


def test_undo_is_read_undone(api: Api) -> None:
    greeter(api, "one", "two")

    api.expect(200, "POST", f"{LABELS}/production/undo", {})

    assert text(api) == "one"


def test_a_restored_prompt_is_read_again_and_one_of_its_name_is_not_taken_for_it(api: Api) -> None:
    greeter(api, "one")
    prompt_id = api.expect(200, "GET", "/v1/prompts/greeter")["prompt_id"]
    api.expect(200, "DELETE", "/v1/prompts/greeter")
    greeter(api, "another")
    before = text(api)
    api.expect(200, "DELETE", "/v1/prompts/greeter")

    api.expect(200, "POST", f"/v1/prompts/{prompt_id}/restore", {})

    assert (before, text(api)) == ("another", "one")


@pytest.mark.parametrize("permanent", ["", "?permanent=true"])
def test_nothing_is_read_in_a_deleted_or_renamed_project(api: Api, permanent: str) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    greeter(api, project="atlas")
    inside = f"{PRODUCTION}?project=atlas"
    before = [how(api, inside) for _ in range(2)]

    api.expect(200, "PATCH", "/v1/projects/atlas", {"name": "maps"})
    renamed = api.request("GET", inside).status_code
    found = [how(api, f"{PRODUCTION}?project=maps") for _ in range(2)]
    assert api.request("DELETE", f"/v1/projects/maps{permanent}").status_code in (200, 204)

    assert (before, renamed, found) == ([MISS, LOCAL], 404, [MISS, LOCAL])
    assert api.request("GET", f"{PRODUCTION}?project=maps").status_code == 404


def test_latest_is_the_newest_whoever_made_it(api: Api, admin: Caller) -> None:
    greeter(api, "one")
    before = how(api, LATEST)
    with db.transaction() as session:
        prompt = session.query(Prompt).one()
        prompts.add_version(session, prompt.id, check_content(template_source="two"), author="search", message="")

    assert (before, text(api, LATEST), text(api)) == (LOCAL, "two", "one")


def test_a_new_version_that_no_label_moves_to_has_only_latest_read_again(api: Api) -> None:
    greeter(api, "one")
    first = f"{VERSIONS}/1"
    how(api, first)

    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "two"})

    assert [how(api, path) for path in (PRODUCTION, first, LATEST)] == [LOCAL, LOCAL, MISS]
    assert [text(api, path) for path in (PRODUCTION, first, LATEST)] == ["one", "one", "two"]


def test_what_is_not_there_is_not_remembered(api: Api) -> None:
    before = api.request("GET", PRODUCTION).status_code

    make_prompt(api, template="one")

    assert (before, text(api)) == (404, "one")


def test_a_key_of_another_workspace_or_project_is_not_served_what_others_read(
    api: Api, as_user: Callable[..., Api]
) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    stranger = as_user(workspace="elsewhere")
    make_prompt(stranger, template="theirs")
    limited = as_user(user="limited", projects=["atlas"])
    greeter(api, "ours")

    assert how(api) == LOCAL
    assert text(stranger) == "theirs"
    assert limited.request("GET", PRODUCTION).status_code == 404
    assert api.request("GET", PRODUCTION).headers["Cache-Control"] == "private, no-cache"


def two_processes(api: Api) -> tuple[cached.Registry, cached.Registry]:
    """Two that follow the registry, and the same Redis."""
    found = []
    for _ in range(2):
        cached.use_registry(None)
        cached.registry().refresh()
        found.append(cached.registry())
    return found[0], found[1]


def within(process: cached.Registry, ask: Callable[[], str]) -> str:
    cached.use_registry(process)
    return ask()


def test_what_one_process_read_another_finds_in_redis_until_it_changes(api: Api) -> None:
    greeter(api, "one")
    first, second = two_processes(api)
    asked = [within(first, lambda: how(api))]
    first.refresh(now=True)  # which puts into Redis what waits for it

    asked += [within(second, lambda: how(api)) for _ in range(2)]
    make_prompt(api, template="two")
    asked += [within(first, lambda: how(api)), within(second, lambda: text(api))]

    assert asked == [MISS, REDIS, LOCAL, MISS, "two"]


def test_a_process_that_was_idle_catches_up_before_it_answers(api: Api) -> None:
    greeter(api, "one")
    first, idle = two_processes(api)
    before = [within(idle, lambda: how(api)) for _ in range(2)]
    for number in range(30):
        within(first, lambda n=number: str(make_prompt(api, template=f"template {n}")))

    assert (before, within(idle, lambda: text(api))) == ([MISS, LOCAL], "template 29")


def test_a_process_that_begins_trusts_nothing_in_redis_from_before(api: Api) -> None:
    greeter(api, "one")
    cached.registry().refresh(now=True)

    cached.use_registry(None)

    assert how(api) == MISS


def test_without_redis_everything_is_true_all_the_same(api: Api, redis_server: RedisServer) -> None:
    greeter(api, "one")
    redis_server.kill()
    try:
        before = how(api)
        make_prompt(api, template="two")
        after = [text(api), how(api), how(api)]
        stats = api.expect(200, "GET", "/v1/cache/stats")
    finally:
        redis_server.start()

    assert (before, after) == (LOCAL, ["two", LOCAL, LOCAL])
    assert (stats["redis_available"], stats["total_hits"] > 0) == (False, True)


def test_an_answer_that_was_read_while_it_changed_is_not_kept(api: Api) -> None:
    greeter(api, "one")
    remembered = cached.registry()
    version = remembered.version
    old = api.expect(200, "GET", PRODUCTION)
    with db.reading() as session:
        prompt = session.query(Prompt).one()
    make_prompt(api, template="two")
    remembered.refresh()

    remembered.keep("key", cached.Made(old, [prompt.id.hex], prompt.project_id), version=version)

    assert remembered.find("key") == (None, "")

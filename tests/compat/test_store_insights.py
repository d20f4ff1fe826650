"""/api/v1/prompts/{id}/drift and /suggestions look at the prompt itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared import db
from shared.domain import prompts
from shared.domain.names import VersionChoice
from shared.domain.tenants import Caller
from tests.compat.store import at, data, make
from tests.executed import insert_executions
from tests.support import Api


def test_texts_that_differ_are_significant_changes(api: Api) -> None:
    made = make(api, content="one two three four five")
    data(api, "PUT", at(made, "/content"), {"content": "one two three four five six"})
    data(api, "PUT", at(made, "/content"), {"content": "nothing of that"})

    found = data(api, "GET", at(made, "/drift"))

    assert (found["drift_detected"], found["drift_score"]) == (True, 1.0)
    assert [(one["version"], one["similarity"]) for one in found["significant_changes"]] == [(2, 0.0), (1, 0.0)]
    assert all(one["created_at"] for one in found["significant_changes"])


def test_a_prompt_with_one_version_has_not_drifted(api: Api) -> None:
    found = data(api, "GET", at(make(api), "/drift"))

    assert (found["drift_detected"], found["drift_score"], found["significant_changes"]) == (False, 0.0, [])
    assert found["answers_verdict"] == "not_enough_data"


def test_answers_that_differ_are_drift_where_the_text_is_the_same(api: Api, admin: Caller) -> None:
    """The original looked at words alone."""
    made = make(api)
    with db.reading() as session:
        prompt = prompts.get_prompt(session, admin, "blog_intro")
        version = prompts.get_version(session, prompt, VersionChoice(number=1))
    now = datetime.now(UTC)
    before = [{"latency_ms": 100 + n, "created_at": now - timedelta(days=20)} for n in range(40)]
    after = [{"latency_ms": 900 + n, "created_at": now - timedelta(days=2)} for n in range(40)]
    insert_executions(admin, [*before, *after], version=version)

    found = data(api, "GET", at(made, "/drift"))

    verdicts = {signal["signal"]: signal["verdict"] for signal in found["signals"]}
    assert (found["drift_detected"], found["significant_changes"]) == (True, [])
    assert (found["answers_verdict"], verdicts["latency_ms"]) == ("drift", "drift")


def suggestions(api: Api, prompt: Any) -> Any:
    return data(api, "GET", at(prompt, "/suggestions"))


def test_suggestions_are_of_the_text_and_not_of_its_category(api: Api) -> None:
    vague = make(api, "vague", category="code", content="{{ text }} do it")
    clear = make(
        api,
        "clear",
        category="code",
        content="Reply with one sentence of at most 20 words.\n<text>\n{{ text }}\n</text>",
    )

    assert suggestions(api, vague)["suggestions"] != suggestions(api, clear)["suggestions"]
    assert suggestions(api, vague)["total"] > suggestions(api, clear)["total"]


def test_at_most_five_suggestions_are_shown_each_a_text(api: Api) -> None:
    made = make(
        api, content="Maybe {{ a }} or perhaps {{ b }}. Do not {{ c }}. Never {{ d }}. Don't {{ e }}. {{ f }} {{ g }}"
    )

    found = suggestions(api, made)

    assert found["total"] > 5
    assert len(found["suggestions"]) == 5
    assert all(isinstance(one, str) and one.startswith("Line 1: ") for one in found["suggestions"])

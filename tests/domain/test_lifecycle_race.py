"""Two who saw the same state of a prompt and want different ones: one wins, and the other hears what it became."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared import db
from shared.domain import lifecycle, prompts
from shared.domain.content import check_content
from shared.domain.lifecycle import Lifecycle
from shared.domain.tenants import Caller
from shared.errors import Conflict
from shared.models import LifecycleChange, Prompt
from tests.rows import count, event_data


@pytest.fixture
def published(admin: Caller) -> Prompt:
    """As somebody has read it."""
    content = check_content(template_source="Hello {{ name }}.")
    with db.transaction() as session:
        made = prompts.upsert(session, admin, "greeter", content, set_active=True).prompt
        lifecycle.change_state(session, admin, made, Lifecycle.PUBLISHED)
    with db.reading() as session:
        return prompts.get_prompt(session, admin, "greeter")


def change(caller: Caller, seen: Prompt, state: Lifecycle) -> str:
    try:
        with db.transaction() as session:
            return lifecycle.change_state(session, caller, seen, state).lifecycle
    except Conflict as error:
        return error.detail


def test_who_saw_an_older_state_changes_nothing(admin: Caller, published: Prompt) -> None:
    assert change(admin, published, Lifecycle.DEPRECATED) == "deprecated"

    # Allowed from what it is now; but that is not what he saw.
    late = change(admin, published, Lifecycle.ARCHIVED)

    assert late == "greeter became deprecated meanwhile; it was published"
    assert count(LifecycleChange) == 2


def test_of_changes_at_once_from_the_same_state_one_wins(admin: Caller, published: Prompt) -> None:
    wanted = [Lifecycle.DEPRECATED, Lifecycle.ARCHIVED] * 4
    start = threading.Barrier(len(wanted))

    def one(state: Lifecycle) -> str:
        start.wait(timeout=30)
        return change(admin, published, state)

    with ThreadPoolExecutor(len(wanted)) as pool:
        outcomes = list(pool.map(one, wanted))

    winners = [outcome for outcome in outcomes if outcome in set(Lifecycle)]
    with db.reading() as session:
        assert prompts.get_prompt(session, admin, "greeter").lifecycle == winners[0]
    assert len(winners) == 1
    assert event_data("prompt.lifecycle_changed")[1:] == [{"from": "published", "to": winners[0]}]


def test_a_batch_goes_on_after_an_item_that_cannot_be_changed(admin: Caller, published: Prompt) -> None:
    with db.transaction() as session:
        found = lifecycle.change_states(session, admin, ["nowhere", "greeter"], Lifecycle.DEPRECATED)

    assert [(item.name, item.previous, item.state) for item in found] == [
        ("nowhere", None, None),
        ("greeter", "published", "deprecated"),
    ]

"""What makes content the same, and what an upsert writes: versions, labels and events."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from shared import db
from shared.domain import projects, prompts
from shared.domain.content import check_content, message_templates, render_messages, variables_of
from shared.domain.names import VersionChoice
from shared.domain.prompts import Upserted
from shared.domain.tenants import Caller
from shared.errors import (
    AlreadyExists,
    Conflict,
    InvalidTemplate,
    NotFound,
    RenderFailed,
    Unprocessable,
)
from shared.hashing import sha256
from shared.models import Event, Label, Prompt, Version
from tests.rows import count, event_data, everything

SYSTEM = {"role": "system", "content": "Be {{ tone }}."}
USER = {"role": "user", "content": "Hello {{ name }}."}
MODEL = {"provider": "simulated", "model_name": "simulated-small", "params": {"temperature": 0.5}}


def to_nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def to_nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def to_lf(text: str) -> str:
    return text.replace("\r\n", "\n")


def put(caller: Caller, source: str = "Hello {{ name }}.", **fields: Any) -> Upserted:
    with db.transaction() as session:
        return prompts.upsert(session, caller, "greeter", check_content(template_source=source), **fields)


def history() -> list[tuple[int, str]]:
    with db.reading() as session:
        versions = session.scalars(sa.select(Version).order_by(Version.number))
        return [(version.number, version.content["template_source"]) for version in versions]


def production() -> int | None:
    with db.reading() as session:
        return session.scalar(
            sa.select(Version.number).join(Label, Label.version_id == Version.id).where(Label.name == "production")
        )


def test_the_template_hash_is_the_sha256_of_the_source() -> None:
    assert check_content(template_source="Hello\n").template_hash == sha256("Hello\n")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"template_source": "Hello"}, {"template_source": "hello"}),
        ({"template_source": "Hello"}, {"template_source": "Hello "}),
        ({"template_source": "Hello"}, {"template_source": "Hello\n"}),
        ({"template_source": "a\nb"}, {"template_source": "a\r\nb"}),
        ({"template_source": "é"}, {"template_source": "e\u0301"}),
        ({"messages": [SYSTEM, USER]}, {"messages": [USER, SYSTEM]}),
        ({"messages": [USER]}, {"messages": [{**USER, "role": "assistant"}]}),
        ({"messages": [USER]}, {"template_source": USER["content"]}),
        ({"template_source": "Hello"}, {"template_source": "Hello", "model": MODEL}),
        (
            {"template_source": "Hello", "model": MODEL},
            {"template_source": "Hello", "model": {**MODEL, "params": {"temperature": 0.6}}},
        ),
    ],
)
def test_whatever_differs_in_the_content_differs_in_the_hash(left: Any, right: Any) -> None:
    assert check_content(**left).content_hash != check_content(**right).content_hash


def test_the_model_settings_are_in_the_content_hash_and_not_in_the_template_hash() -> None:
    plain = check_content(template_source="Hello")
    tuned = check_content(template_source="Hello", model=MODEL)

    assert tuned.template_hash == plain.template_hash
    assert tuned.content_hash != plain.content_hash


def test_the_order_of_keys_does_not_count() -> None:
    message = {"content": USER["content"], "role": "user"}
    model = {"params": {"temperature": 0.5}, "model_name": "simulated-small", "provider": "simulated"}

    assert check_content(messages=[message], model=model) == check_content(messages=[USER], model=MODEL)


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="{}\x00"), max_size=20),
    change=st.sampled_from([str, str.strip, str.lower, str.upper, str.expandtabs, str.swapcase, to_nfc, to_nfd, to_lf]),
)
def test_two_texts_have_one_hash_only_when_they_are_one_text(text: str, change: Callable[[str], str]) -> None:
    left, right = f"x{text}", f"x{change(text)}"

    same = check_content(template_source=left).content_hash == check_content(template_source=right).content_hash

    assert same == (left == right)


def test_the_variables_of_all_messages_are_recorded_sorted() -> None:
    content = check_content(messages=[USER, SYSTEM, USER])

    assert content.variables == ("name", "tone")
    assert variables_of(content.body) == ["name", "tone"]


def test_a_text_template_is_one_user_message() -> None:
    content = check_content(template_source="Hello {{ name }}.")

    assert message_templates(content.body) == [{"role": "user", "content": "Hello {{ name }}."}]
    assert render_messages(content.body, {"name": "Ada"}) == [{"role": "user", "content": "Hello Ada."}]


def test_messages_are_rendered_each_with_its_role() -> None:
    content = check_content(messages=[SYSTEM, USER])

    rendered = render_messages(content.body, {"tone": "kind", "name": "Ada"})

    assert rendered == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello Ada."}]


def test_a_missing_variable_of_a_message_is_named() -> None:
    content = check_content(messages=[SYSTEM, USER])

    with pytest.raises(RenderFailed) as failed:
        render_messages(content.body, {"tone": "kind"})

    assert [error.pointer for error in failed.value.errors] == ["/variables/name"]


def test_the_size_of_all_messages_together_is_limited() -> None:
    content = check_content(messages=[{"role": "user", "content": "{{ text }}"}] * 2)
    render_messages(content.body, {"text": "x" * 100_000})

    with pytest.raises(Unprocessable, match="200000 bytes"):
        render_messages(content.body, {"text": "x" * 100_001})


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, "/template_source"),
        ({"template_source": "a", "messages": [USER]}, "/template_source"),
        ({"template_source": ""}, "/template_source"),
        ({"template_source": " \n"}, "/template_source"),
        ({"template_source": "{{ range(3) }}"}, "/template_source"),
        ({"messages": []}, "/messages"),
        ({"messages": [USER, {"role": "user", "content": " "}]}, "/messages/1/content"),
        ({"messages": [USER, {"role": "user", "content": "{% if a %}"}]}, "/messages/1/content"),
        ({"messages": [USER, {"role": "tool", "content": "a"}]}, "/messages/1/role"),
    ],
)
def test_bad_content_is_refused_where_it_stands(fields: Mapping[str, Any], pointer: str) -> None:
    with pytest.raises((Unprocessable, InvalidTemplate)) as refused:
        check_content(**fields)

    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_content_that_any_earlier_version_has_makes_no_version(admin: Caller) -> None:
    changes = [put(admin, source).version_change for source in ("one", "two", "three")]

    again = [put(admin, source) for source in ("one", "three", "two", "one")]

    assert changes == [True, True, True]
    assert [upserted.version.number for upserted in again] == [1, 3, 2, 1]
    assert not any(upserted.version_change for upserted in again)
    assert history() == [(1, "one"), (2, "two"), (3, "three")]


def test_the_same_content_is_a_version_of_each_prompt_that_has_it(admin: Caller) -> None:
    content = check_content(template_source="shared")
    with db.transaction() as session:
        first = prompts.upsert(session, admin, "one", content)
        second = prompts.upsert(session, admin, "two", content)

    assert (first.version.number, second.version.number) == (1, 1)
    assert first.version.id != second.version.id


def test_set_active_moves_production_forward_and_back(admin: Caller) -> None:
    moves = []

    for source, fields in [("one", {}), ("one", {"set_active": True}), ("two", {}), ("two", {"set_active": True})]:
        put(admin, source, **fields)
        moves.append(production())
    put(admin, "one", set_active=True)

    assert moves == [None, 1, 1, 2]
    assert production() == 1
    assert event_data("prompt.label_moved") == [
        {"label": "production", "from": None, "to": 1},
        {"label": "production", "from": 1, "to": 2},
        {"label": "production", "from": 2, "to": 1},
    ]


def test_nothing_at_all_is_written_when_nothing_changes(admin: Caller) -> None:
    fields: dict[str, Any] = {
        "description": "greets",
        "owner_team": "core",
        "category": "chat",
        "tags": ["a"],
        "set_active": True,
    }
    put(admin, **fields)
    before = everything()

    put(admin, **fields)

    assert everything() == before


def test_a_change_of_description_is_an_event_and_no_version(admin: Caller) -> None:
    put(admin, description="old", owner_team="core")

    upserted = put(admin, description="new")

    assert not upserted.version_change
    assert (upserted.prompt.description, upserted.prompt.owner_team) == ("new", "core")
    assert event_data("prompt.updated") == [{"description": "new"}]
    assert count(Version) == 1


def test_a_first_put_is_one_creation_and_one_version_in_the_history(admin: Caller) -> None:
    put(admin, description="greets", created_by="ada", message="first")

    with db.reading() as session:
        kinds = session.execute(sa.select(Event.type, Event.actor).where(Event.type.startswith("prompt."))).all()
        version = session.scalars(sa.select(Version)).one()
    assert sorted(tuple(row) for row in kinds) == [("prompt.created", "ada"), ("prompt.version_created", "ada")]
    assert (version.created_by, version.message) == ("ada", "first")


def test_must_be_new_refuses_a_name_that_is_taken_and_writes_nothing(admin: Caller) -> None:
    put(admin, "one")
    before = everything()

    with pytest.raises(AlreadyExists):
        put(admin, "two", must_be_new=True)

    assert everything() == before


def test_a_prompt_that_lives_in_code_is_not_changed_here(admin: Caller) -> None:
    put(admin, "one")
    with db.transaction() as session:
        session.execute(sa.update(Prompt).values(mode="tracking"))

    with pytest.raises(Conflict, match="tracking mode"):
        put(admin, "two")

    assert history() == [(1, "one")]


def test_a_prompt_is_found_in_its_project_only(admin: Caller) -> None:
    with db.transaction() as session:
        projects.create_project(session, admin, name="atlas")
    put(admin, "one", project="atlas")

    with db.reading() as session:
        assert prompts.get_prompt(session, admin, "greeter", project="atlas").name == "greeter"
        with pytest.raises(NotFound):
            prompts.get_prompt(session, admin, "greeter")


def wanted(prompt: Prompt, choice: VersionChoice) -> int:
    with db.reading() as session:
        return prompts.get_version(session, prompt, choice).number


def test_a_version_is_chosen_by_number_label_or_hash(admin: Caller) -> None:
    one, two = put(admin, "one", set_active=True), put(admin, "two")

    assert wanted(two.prompt, VersionChoice(number=2)) == 2
    assert wanted(two.prompt, VersionChoice(label="production")) == 1
    assert wanted(two.prompt, VersionChoice(label="latest")) == 2
    assert wanted(two.prompt, VersionChoice(content_hash=one.version.content_hash[:12])) == 1


@pytest.mark.parametrize(
    "choice",
    [
        VersionChoice(number=2),
        VersionChoice(label="staging"),
        VersionChoice(label="production"),
        VersionChoice(label="a\x00b"),
        VersionChoice(content_hash="0" * 64),
        VersionChoice(content_hash="%"),
    ],
)
def test_a_version_that_does_not_exist_is_never_replaced_by_another(admin: Caller, choice: VersionChoice) -> None:
    upserted = put(admin, "one")

    with pytest.raises(NotFound):
        wanted(upserted.prompt, choice)


def test_a_hash_that_begins_two_versions_is_ambiguous(admin: Caller) -> None:
    by_digit: dict[str, list[str]] = {}
    for source in (f"text {number}" for number in range(17)):  # two of seventeen share the first of sixteen digits
        by_digit.setdefault(check_content(template_source=source).content_hash[0], []).append(source)
    digit, sources = max(by_digit.items(), key=lambda item: len(item[1]))
    made = [put(admin, source) for source in sources]

    with pytest.raises(Unprocessable, match="ambiguous"):
        wanted(made[0].prompt, VersionChoice(content_hash=digit))

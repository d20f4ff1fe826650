"""Names, labels and references: what is taken, what is refused, and where the error points."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.names import (
    ROUTE_WORDS,
    VersionChoice,
    check_label,
    check_name,
    is_name,
    parse_reference,
)
from shared.errors import Unprocessable

BAD_NAMES = [
    "",
    " ",
    "-dash-first",
    ".dot-first",
    "with space",
    "with/slash",
    "with@at",
    "né",
    "line\n",
    "nul\x00",
    "x" * 129,
    "123e4567-e89b-12d3-a456-426614174000",
    "123e4567e89b12d3a456426614174000",
    "import",
    "Latest",
]


@pytest.mark.parametrize("name", ["a", "A", "0", "my-prompt_v1.2", "x" * 128, "imports", "v1"])
def test_a_plain_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name
    assert is_name(name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_and_the_error_points_at_it(name: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        check_name(name, "/dataset/name")

    assert [error.pointer for error in refused.value.errors] == ["/dataset/name"]


@pytest.mark.parametrize("word", sorted(ROUTE_WORDS))
def test_no_word_of_a_route_is_a_name(word: str) -> None:
    with pytest.raises(Unprocessable, match="is a word of the API's routes"):
        check_name(word)


@given(st.text() | st.text("ab01-._@/%\n") | st.uuids().map(str) | st.uuids().map(lambda made: made.hex))
def test_whatever_is_taken_as_a_name_can_stand_in_a_url_and_is_no_uuid(text: str) -> None:
    try:
        name = check_name(text)
    except Unprocessable:
        return

    assert name.isascii()
    assert not set(name) & set("/@?#% \n\x00")
    with pytest.raises(ValueError):
        uuid.UUID(name)


@pytest.mark.parametrize("label", ["production", "a", "0a", "2026-12", "qa.eu_1-b", "x" * 36, "version1", "v", "v1a"])
def test_a_plain_label_is_taken(label: str) -> None:
    assert check_label(label) == label


@pytest.mark.parametrize(
    "label",
    [
        "",
        "Production",
        "x" * 37,
        "-a",
        "a b",
        "a\n",
        "latest",
        "v1",
        "v007",
        "12",
        "123e4567-e89b-12d3-a456-426614174000",
    ],
)
def test_a_bad_label_is_refused(label: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        check_label(label)

    assert [error.pointer for error in refused.value.errors] == ["/label"]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("greeter", ("greeter", None)),
        ("greeter@staging", ("greeter", VersionChoice(label="staging"))),
        ("greeter@latest", ("greeter", VersionChoice(label="latest"))),
        ("greeter@v12", ("greeter", VersionChoice(number=12))),
        ("greeter@v999999999", ("greeter", VersionChoice(number=999_999_999))),
        ("greeter@sha256:0a1b2c", ("greeter", VersionChoice(content_hash="0a1b2c"))),
        ("greeter@sha256:" + "f" * 64, ("greeter", VersionChoice(content_hash="f" * 64))),
    ],
)
def test_a_reference_names_a_prompt_and_at_most_one_version(
    reference: str, expected: tuple[str, VersionChoice | None]
) -> None:
    assert parse_reference(reference) == expected


@pytest.mark.parametrize(
    "reference",
    [
        "greeter@",
        "greeter@v0",
        "greeter@v01",
        "greeter@v1000000000",
        "greeter@Staging",
        "greeter@a@b",
        "greeter@sha256:",
        "greeter@sha256:12345",
        "greeter@sha256:ABCDEF",
        "greeter@sha256:" + "f" * 65,
        "greeter@sha256:%%%%%%",
    ],
)
def test_a_reference_that_means_nothing_is_refused(reference: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        parse_reference(reference)

    assert [error.pointer for error in refused.value.errors] == ["/prompt_name"]

"""Every setting stands in .env.example and in docs/reference/settings.md, with its default, and nothing else does."""

import re

import pytest

from shared.config import Settings
from tests.architecture.deployment import OURS, SECRETS, interpolated, read, services, setting_defaults, setting_name


def test_the_example_file_of_deploy_is_the_one_that_people_copy() -> None:
    assert read("deploy/env.example") == read(".env.example")


def test_the_example_file_names_every_setting_and_nothing_that_nobody_reads() -> None:
    read_by_compose = {name for service in OURS for name in services()[service]["environment"]} | set(interpolated())

    assert set(example()) == set(setting_defaults()) | read_by_compose


def test_the_example_file_names_each_setting_once() -> None:
    names = [name for _, name, _ in example_lines()]

    assert len(names) == len(set(names))


def test_the_example_file_shows_the_defaults() -> None:
    defaults = setting_defaults()

    shown = {name: value for name, value in example().items() if name in defaults}

    assert shown == defaults


def test_a_copy_of_the_example_file_sets_nothing_but_the_secrets_and_those_to_nothing() -> None:
    active = {name: value for comment, name, value in example_lines() if not comment}

    assert active == dict.fromkeys(SECRETS, "")


def test_a_setting_that_is_left_empty_is_as_if_it_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(setting_name(field), "")

    assert Settings().keep_executions_days is None
    assert Settings().concurrency == 16


@pytest.mark.parametrize("field", list(Settings.model_fields))
def test_the_settings_page_gives_the_default_and_the_meaning_of(field: str) -> None:
    name = setting_name(field)

    default, meaning = page()[name]

    assert default == (f"`{setting_defaults()[name]}`" if setting_defaults()[name] else "unset")
    assert (Settings.model_fields[field].description or "") in meaning
    assert meaning


def test_the_settings_page_names_what_the_example_file_names_and_nothing_else() -> None:
    assert set(page()) == set(example())


def example() -> dict[str, str]:
    return {name: value for _, name, value in example_lines()}


def example_lines() -> list[tuple[str, str, str]]:
    """("# " or "", name, value) of each line that sets something."""
    return re.findall(r"^(# )?([A-Z_]+)=(.*)$", read(".env.example"), flags=re.MULTILINE)


def page() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", read("docs/reference/settings.md"), flags=re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in rows}

"""Undo walks back through any history of moves, deletes and undos, as a stack of them says it must."""

import contextlib
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import db
from shared.domain import labels, prompts
from shared.domain.content import check_content
from shared.domain.names import VersionChoice
from shared.domain.tenants import Caller
from shared.errors import Conflict, NotFound
from shared.models import Prompt

NUMBERS = itertools.count()
STEPS = st.lists(st.sampled_from([1, 2, 3, "delete", "undo"]), max_size=12)


@pytest.fixture
def greeter(admin: Caller) -> Prompt:
    """A prompt with versions 1, 2 and 3."""
    for source in ("one", "two", "three"):
        with db.transaction() as session:
            prompt = prompts.upsert(session, admin, "greeter", check_content(template_source=source)).prompt
    return prompt


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
def test_an_undo_takes_back_the_newest_move_that_stands(admin: Caller, greeter: Prompt, steps: list[int | str]) -> None:
    label = f"label-{next(NUMBERS)}"  # a fresh one for each example
    here: int | None = None
    stack: list[int | None] = []  # where the label pointed before each move that stands
    for step in steps:
        wanted = here
        if step == "undo" and stack and stack[-1] is not None:
            wanted = stack.pop()
        elif step == "delete" and here is not None:
            stack.append(here)
            wanted = None
        elif isinstance(step, int) and step != here:
            stack.append(here)
            wanted = step

        here = take(admin, greeter, label, step)

        assert here == wanted


def take(caller: Caller, prompt: Prompt, label: str, step: int | str) -> int | None:
    """Where the label points after this step; a step that is refused leaves it where it was."""
    with contextlib.suppress(Conflict, NotFound), db.transaction() as session:
        prompt = session.get_one(Prompt, prompt.id)
        if step == "undo":
            labels.undo_move(session, caller, prompt, label)
        elif step == "delete":
            labels.delete_label(session, caller, prompt, label)
        else:
            version = prompts.get_version(session, prompt, VersionChoice(number=int(step)))
            labels.move_label(session, caller, prompt, label, version)
    with db.reading() as session:
        return {placed.label: placed.version_number for placed in labels.list_labels(session, prompt)}.get(label)

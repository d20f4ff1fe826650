"""What of an answer is kept: 500,000 bytes, whole characters, and how much there was."""

import pytest

from shared.domain.tenants import Caller
from shared.models import State
from tests.factories import execution, submit
from tests.support import Drain
from worker import providers
from worker.providers import Answer, Request
from worker.steps.executions import MAX_RESPONSE_BYTES


class Says:
    """Stands where a model would, and says what it is told to."""

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, request: Request) -> Answer:
        return Answer(self.text, 1, 2, 3)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * MAX_RESPONSE_BYTES, MAX_RESPONSE_BYTES),
        ("", 0),
        ("é" * (MAX_RESPONSE_BYTES // 2), MAX_RESPONSE_BYTES // 2),
    ],
    ids=["the most", "nothing", "the most in two bytes each"],
)
def test_an_answer_of_the_largest_size_is_kept_whole(
    admin: Caller, drain: Drain, monkeypatch: pytest.MonkeyPatch, text: str, kept: int
) -> None:
    monkeypatch.setitem(providers._adapters, "simulated", Says(text))
    (execution_id,) = submit(admin)

    drain()

    done = execution(execution_id)
    assert (done.state, done.truncated, done.error_type) == (State.SUCCEEDED, False, None)
    assert (len(done.response_text or ""), done.response_bytes) == (kept, len(text.encode()))


@pytest.mark.parametrize("first", ["", "x"], ids=["the cut falls between characters", "the cut falls within one"])
def test_a_longer_answer_is_cut_after_a_whole_character_marked_and_paid_for(
    admin: Caller, drain: Drain, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    text = first + "é" * MAX_RESPONSE_BYTES
    monkeypatch.setitem(providers._adapters, "simulated", Says(text))
    (execution_id,) = submit(admin)

    drain()

    done = execution(execution_id)
    assert (done.state, done.truncated, done.error_type) == (State.SUCCEEDED, True, "truncated")
    assert done.response_text == text[: MAX_RESPONSE_BYTES // 2]
    assert done.response_bytes == len(text.encode()) > MAX_RESPONSE_BYTES
    assert done.cost_nano is not None

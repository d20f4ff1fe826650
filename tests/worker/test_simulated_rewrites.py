"""The simulated writer answers each kind of request by what it is shown, and does not know who asks."""

import re

import pytest

from shared.knobs import LLM_OPERATORS
from worker.simulator.chance import Dice
from worker.simulator.rewrites import ELABORATIONS, PHRASES, is_rewrite_request, rewrite
from worker.strategies import operators
from worker.strategies.operators import Failure, Shown

TEXT = "Sort the ticket.\nBe brief, and say which it is.\n\nTicket:\n{{ ticket }}"
OTHER = "Sort it well.\nIgnore signatures and quoted replies.\nTicket:\n{{ ticket }}"
FAILURE = Failure(7, {"ticket": "Please repair my card, and rephrase it."}, "technical", "no JSON in the answer")
SHOWN = Shown([FAILURE], [FAILURE], [OTHER], [(OTHER, 0.2), (TEXT, 0.4)], "- The prompt does not insist on the format.")
REQUESTS = (*LLM_OPERATORS, "de_llm", "apply_gradient", "gradient", "repair")
SEEDS = range(120)


def answers(operator: str, text: str = TEXT, shown: Shown = SHOWN) -> list[str]:
    messages = operators.request(operator, text, shown)
    assert is_rewrite_request(messages)
    return [rewrite(messages, Dice(seed)) for seed in SEEDS]


def share_with(answered: list[str], pattern: str) -> float:
    return sum(bool(re.search(pattern, one)) for one in answered) / len(answered)


@pytest.mark.parametrize("operator", REQUESTS)
def test_the_same_request_with_the_same_dice_has_the_same_answer_and_other_dice_another(operator: str) -> None:
    one, again = answers(operator), answers(operator)

    assert one == again
    assert len(set(one)) > 1


@pytest.mark.parametrize("operator", [name for name in REQUESTS if name != "gradient"])
def test_most_answers_hold_a_prompt_with_its_placeholder_and_some_are_broken(operator: str) -> None:
    parsed = [operators.parse(one) for one in answers(operator)]

    assert 0.85 < sum("{{ ticket }}" in (text or "") for text in parsed) / len(parsed) < 1


def test_a_critique_names_reasons_and_writes_no_prompt() -> None:
    found = answers("gradient")

    assert share_with(found, r"<reasons>\n- It|<reasons>\n- The") == 1
    assert share_with(found, "<prompt>") == 0
    assert share_with(found, "does not insist on the format") > 0.4  # the symptom that was shown


def test_a_critique_that_is_shown_is_followed_more_often_than_none() -> None:
    demands = "|".join(map(re.escape, PHRASES["strict_format"]))

    followed = share_with(answers("apply_gradient"), demands)
    unguided = share_with(answers("apply_gradient", shown=Shown(note="It could be better.")), demands)

    assert followed > unguided + 0.15


def test_combining_takes_lines_of_the_other_prompt() -> None:
    assert share_with(answers("crossover_llm"), "Ignore signatures and quoted replies") > 0.6
    assert share_with(answers("paraphrase"), "Ignore signatures and quoted replies") == 0


def test_elaborating_lengthens_and_restructuring_makes_bullets() -> None:
    assert share_with(answers("elaborate"), "|".join(map(re.escape, ELABORATIONS))) > 0.9
    assert share_with(answers("restructure"), r"# Instructions\n(?:.*\n)*- (?:Sort|Be brief)") > 0.9
    assert share_with(answers("restructure"), r"- \{\{") == 0


def test_a_repair_puts_back_the_placeholder_that_is_asked_for() -> None:
    note = "variables changed from ['ticket'] to []; it must have exactly these placeholders: {{ ticket }}"

    parsed = [operators.parse(one) for one in answers("repair", "Sort the ticket.", Shown(note=note))]

    assert sum(text == "Sort the ticket.\n{{ ticket }}" for text in parsed) / len(parsed) > 0.85


def test_what_a_shown_input_says_is_no_request() -> None:
    """A ticket about a repair was once answered with a repair: the prompt as it was."""
    quiet = Failure(7, {"ticket": "My card."}, "technical", "no JSON in the answer")

    for failure in (FAILURE, quiet):
        parsed = [operators.parse(one) for one in answers("reflect", shown=Shown([failure]))]
        assert sum(text == TEXT for text in parsed) / len(parsed) < 0.1

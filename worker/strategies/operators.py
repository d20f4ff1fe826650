"""Ways to make a new text out of old ones by asking a model: what it is asked, and how its answer is read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker.strategies.placeholders import PLACEHOLDER

NOTES = ("gradient",)  # the operators whose answer is no prompt but something to make one from
WITH_FAILURES = ("reflect", "gradient")
WITH_EXAMPLES = ("fresh_start", "induce_rules")
WITH_MATES = ("crossover_llm", "de_llm")  # the operators that are shown other prompts, without their scores
_SHOWN_CHARACTERS = 600  # of an input or an output, when a failure is shown to the proposer


@dataclass(frozen=True)
class Failure:
    """A train case that the parent got wrong, as the proposer is shown it."""

    case: int
    inputs: Mapping[str, str]
    output: str
    feedback: str


@dataclass(frozen=True)
class Shown:
    """What a request shows besides the prompt that it is about. An operator takes from it what it needs."""

    failures: Sequence[Failure] = ()
    examples: Sequence[Failure] = ()  # inputs with what was expected
    mates: Sequence[str] = ()  # texts of other prompts
    scored: Sequence[tuple[str, float]] = field(default=())  # earlier prompts with their scores, worst first
    note: str = ""  # a critique to apply, or what is wrong with the prompt


def request(operator: str, text: str, shown: Shown) -> list[dict[str, str]]:
    """The messages that ask a model for a new text."""
    placeholders = sorted(set(PLACEHOLDER.findall(text)))
    keep = f"Keep these placeholders exactly as they are: {', '.join(placeholders)}" if placeholders else ""
    frame = f"\n\n<prompt>\n{text}\n</prompt>\n\n"
    ending = f"{keep}\nGive the complete new prompt between <prompt> and </prompt>.".strip()
    if operator == "gradient":
        ending = "Do not write a new prompt. Give the reasons between <reasons> and </reasons>."
    elif operator == "repair":
        ending = "Give the complete repaired prompt between <prompt> and </prompt>."
    return [
        {"role": "system", "content": "You write prompts for language models."},
        {"role": "user", "content": _opening(operator, frame, shown) + ending},
    ]


def _opening(operator: str, frame: str, shown: Shown) -> str:
    """What is asked; the tasks are those of the papers that are named in docs/why/strategies.md."""
    plain = {
        "paraphrase": "Rephrase this prompt: the same meaning in other words.",
        "shorten": "Shorten this prompt without losing an instruction that matters.",
        "elaborate": "Elaborate this prompt: say in more detail what it leaves open.",
        "restructure": "Restructure this prompt: the same instructions in clear sections with bullets.",
    }
    if operator in plain:
        return plain[operator] + frame
    if operator in ("reflect", "gradient"):
        return _about_failures(operator, frame, shown)
    if operator == "apply_gradient":
        return f"Improve this prompt by this critique of it.{frame}Critique:\n{shown.note}\n\n"
    if operator == "fresh_start":
        return (
            "Write a new and better prompt for the same task."
            f"{frame}Examples of the task:\n\n{_listed(shown.examples)}\n\n"
        )
    if operator == "induce_rules":
        return (
            "Work out general rules that explain these examples, and add them to this prompt. Do not copy the examples."
            f"{frame}Examples of the task:\n\n{_listed(shown.examples)}\n\n"
        )
    if operator == "opro":
        earlier = "\n\n".join(f"Score {score:.2f}:\n<earlier>\n{text}\n</earlier>" for text, score in shown.scored)
        return (
            "Write a new prompt that will score higher than these earlier ones, which stand with the worst first."
            f"\n\n{earlier}\n\nThis is the best of them:{frame}"
        )
    if operator in WITH_MATES:
        others = "\n\n".join(f"<other>\n{text}\n</other>" for text in shown.mates)
        task = (
            "Combine this prompt with the other one: take the best instructions of both."
            if operator == "crossover_llm"
            else "Combine these prompts: find where the first two others differ, change these parts into something "
            "new, and put them into this prompt, together with what is good in the last other one."
        )
        return f"{task}{frame}{others}\n\n"
    if operator != "repair":
        raise KeyError(operator)
    return f"Repair this prompt. It cannot be used: {shown.note}.{frame}"


def _about_failures(operator: str, frame: str, shown: Shown) -> str:
    if operator == "reflect":
        return (
            "Improve this prompt. It is sent to a language model, and some answers were wrong."
            f"{frame}Wrong answers:\n\n{_listed(shown.failures)}"
            "\n\nWork out what the prompt does not say that would have prevented these errors, in general and not only "
            "for these inputs. Do not copy the inputs into the prompt.\n"
        )
    return (
        "Criticize this prompt. It is sent to a language model, and some answers were wrong."
        f"{frame}Wrong answers:\n\n{_listed(shown.failures)}"
        "\n\nGive the reasons why the prompt could have led to these errors.\n"
    )


def parse(answer: str) -> str | None:
    """The new text in a model's answer: between the tags, else in a fence; None when there is none."""
    for pattern in (r"<prompt>\n?(.*?)\n?</prompt>", r"```[a-z]*\n(.*?)\n?```"):
        found = re.findall(pattern, answer, re.DOTALL)
        if found:
            text = str(found[-1])
            return text if text.strip() else None
    return None


def parse_note(answer: str) -> str:
    """The reasons in an answer to `gradient`: between the tags, else all of it, cut to what a request may show."""
    found = re.findall(r"<reasons>\n?(.*?)\n?</reasons>", answer, re.DOTALL)
    return str(found[-1] if found else answer).strip()[:2000]


def _listed(failures: Sequence[Failure]) -> str:
    return "\n\n".join(_shown(failure) for failure in failures)


def _shown(failure: Failure) -> str:
    inputs = "\n".join(f"{name}: {_cut(value)}" for name, value in failure.inputs.items())
    return f"Input:\n{inputs}\nOutput: {_cut(failure.output)}\nFeedback: {_cut(failure.feedback)}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " […]"

"""Ways to make a new text out of an old one: by asking a model, or by an edit that costs nothing."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EDITS = ("delete", "swap", "insert_phrase")  # the operators that ask no model
PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
# All of a template that is not text: placeholders, comments, and a delimiter that stands alone.
_TAG = re.compile(PLACEHOLDER.pattern + r"|\{#.*?#\}|\{[{%#]|[}%#]\}", re.DOTALL)
_SHOWN_CHARACTERS = 600  # of an input or an output, when a failure is shown to the proposer

PHRASES = (
    "Answer with valid JSON and nothing else.",
    "Read the whole input carefully before you answer.",
    "Think about what is asked, step by step, then give only the final answer.",
    "If more than one answer could fit, choose by the main request.",
    "Use exactly the labels that are given.",
    "Ignore greetings, signatures and quoted text.",
    "Keep the answer short.",
    "Pay attention to rare and ambiguous cases.",
)


@dataclass(frozen=True)
class Failure:
    """A train case that the parent got wrong, as the proposer is shown it."""

    case: int
    inputs: Mapping[str, str]
    output: str
    feedback: str


def request(operator: str, text: str, failures: Sequence[Failure], examples: Sequence[Failure]) -> list[dict[str, str]]:
    """The messages that ask a model for a new text.

    `failures` are shown by `reflect`; `examples` (inputs with what was expected) by `fresh_start`.
    """
    placeholders = sorted(set(PLACEHOLDER.findall(text)))
    keep = f"Keep these placeholders exactly as they are: {', '.join(placeholders)}" if placeholders else ""
    frame = f"\n\n<prompt>\n{text}\n</prompt>\n\n"
    ending = f"{keep}\nGive the complete new prompt between <prompt> and </prompt>.".strip()
    openings = {
        "reflect": "Improve this prompt. It is sent to a language model, and some answers were wrong."
        + frame
        + "Wrong answers:\n\n"
        + "\n\n".join(_shown(failure) for failure in failures)
        + "\n\nWork out what the prompt does not say that would have prevented these errors, in general and not only "
        "for these inputs. Do not copy the inputs into the prompt.\n",
        "paraphrase": "Rephrase this prompt: the same meaning in other words." + frame,
        "shorten": "Shorten this prompt without losing an instruction that matters." + frame,
        "fresh_start": "Write a new and better prompt for the same task."
        + frame
        + "Examples of the task:\n\n"
        + "\n\n".join(_shown(example) for example in examples)
        + "\n\n",
    }
    return [
        {"role": "system", "content": "You write prompts for language models."},
        {"role": "user", "content": openings[operator] + ending},
    ]


def parse(answer: str) -> str | None:
    """The new text in a model's answer: between the tags, else in a fence; None when there is none."""
    for pattern in (r"<prompt>\n?(.*?)\n?</prompt>", r"```[a-z]*\n(.*?)\n?```"):
        found = re.findall(pattern, answer, re.DOTALL)
        if found:
            text = str(found[-1])
            return text if text.strip() else None
    return None


def edit(operator: str, text: str, chance: random.Random) -> str:
    """A free edit at the level of lines. Lines that any part of a placeholder touches stay whole and in order."""
    lines = text.split("\n")
    fixed: set[int] = set()
    for tag in _TAG.finditer(text):
        fixed.update(range(text.count("\n", 0, tag.start()), text.count("\n", 0, tag.end()) + 1))
    movable = [i for i, line in enumerate(lines) if line.strip() and i not in fixed]
    if operator == "delete" and len(movable) > 1:
        del lines[chance.choice(movable)]
    elif operator == "swap" and len(movable) > 1:
        first, second = chance.sample(movable, 2)
        lines[first], lines[second] = lines[second], lines[first]
    elif operator == "insert_phrase":
        phrase = chance.choice(PHRASES)
        at = movable[-1] + 1 if movable and not lines[movable[-1]].rstrip().endswith(":") else 0
        lines.insert(at, phrase)
    return "\n".join(lines)


def _shown(failure: Failure) -> str:
    inputs = "\n".join(f"{name}: {_cut(value)}" for name, value in failure.inputs.items())
    return f"Input:\n{inputs}\nOutput: {_cut(failure.output)}\nFeedback: {_cut(failure.feedback)}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " […]"

"""How a request wants to be answered, read from the request alone, and answers in that form."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")
_NEXT = r"(?=\[\[ ## |\n\n(?:Respond|In adhering)|\Z)"
_ATTEMPT = re.compile(r"Instruction #(\d+): (.*?)(?:»|(?=\n\[\d+\])|\Z)", re.DOTALL)
_ATTEMPT_SCORE = re.compile(r"Resulting Score #(\d+): ([\d.]+)")
_EARLIER = re.compile(r"Score ([\d.]+):\n<earlier>\n(.*?)\n</earlier>", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """What a request for a better prompt shows and wants."""

    text: str  # all of the last message
    parent: str | None  # the prompt that it is about
    scored: Sequence[tuple[str, float]]  # earlier prompts with what they scored
    others: Sequence[str]  # prompts to be combined with
    kind: str  # tags, reasons, fence, markers, json, plain
    fields: Sequence[str]  # of markers and json

    @property
    def wants_prompt(self) -> bool:
        """Otherwise it wants to be told something: reasons, observations, descriptions."""
        if self.kind in ("markers", "json"):
            return any("instruction" in field for field in self.fields)
        return self.kind != "reasons"


def read(messages: Sequence[Mapping[str, str]]) -> Asked:
    """Of the last user message only: what frames it may hold words in braces that are no prompt."""
    text = str(messages[-1]["content"])
    kind, fields = _wanted(text)
    scored = [(found[2], float(found[1])) for found in _EARLIER.finditer(text)] + _attempts(text)
    parent = _parent(text)
    if parent is None and scored:
        parent = max(scored, key=lambda pair: pair[1])[0]
    others = re.findall(r"<other>\n(.*?)\n</other>", text, re.DOTALL)
    return Asked(text, parent, scored, others, kind, fields)


def task_kind(messages: Sequence[Mapping[str, str]]) -> tuple[str, Sequence[str]]:
    return _wanted(str(messages[-1]["content"]))


def written(kind: str, fields: Sequence[str], value: Callable[[str], str]) -> str:
    """An answer in the form that was asked for; `value` is what stands in a field."""
    if kind == "markers":
        parts = [f"[[ ## {field} ## ]]\n{value(field)}" for field in fields]
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])
    if kind == "json":
        return json.dumps({field: value(field) for field in fields})
    text = value("")
    if kind == "tags":
        return f"<prompt>\n{text}\n</prompt>"
    if kind == "reasons":
        return f"<reasons>\n{text}\n</reasons>"
    return f"```\n{text}\n```" if kind == "fence" else text


def _wanted(text: str) -> tuple[str, Sequence[str]]:
    _, markers, ending = text.rpartition("Respond with the corresponding output fields")
    if markers:
        return "markers", [field for field in _FIELD.findall(ending) if field != "completed"]
    _, json_wanted, ending = text.rpartition("JSON object in the following order of fields:")
    if json_wanted:
        return "json", re.findall(r"`(\w+)`", ending)
    ending = text[-400:].rpartition("\n```\n")[2]  # what is quoted in a fence says nothing about the answer
    if "<reasons> and </reasons>" in ending:
        return "reasons", []
    if "<prompt> and </prompt>" in ending:
        return "tags", []
    return ("fence" if "```" in ending else "plain"), []


def _parent(text: str) -> str | None:
    tagged = re.search(r"<prompt>\n(.*?)\n</prompt>", text, re.DOTALL)
    if tagged:
        return tagged[1]
    for name in _FIELD.findall(text):
        if "instruction" in name and not name.startswith(("attempted", "previous", "proposed", "new")):
            section = re.search(rf"\[\[ ## {name} ## \]\]\n(.*?){_NEXT}", text, re.DOTALL)
            if section and section[1].strip():
                return section[1].strip()
    fenced = re.search(r"```[a-z]*\n(.*?)\n```", text, re.DOTALL)
    return fenced[1] if fenced else None


def _attempts(text: str) -> list[tuple[str, float]]:
    scores = {number: float(score) for number, score in _ATTEMPT_SCORE.findall(text)}
    # Per cent here, shares there: only their order and differences count, on one scale.
    scale = 100.0 if any(score > 1 for score in scores.values()) else 1.0
    return [
        (shown.strip().removeprefix("«"), scores[number] / scale)
        for number, shown in _ATTEMPT.findall(text)
        if number in scores
    ]

"""Answering a request for test cases: values for each variable, some of them wrong, now and then with words around."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from worker.simulator.chance import Dice

FENCED = 0.25  # chance of a code fence around the array, and of a sentence before it
BROKEN = 0.08  # chance that a case lacks a variable
SILENT = 0.1  # chance that a case does not say what it expects, where it should
REPEATED = 0.06  # chance that a case is an earlier one with another ending
_TAG = r"<{0}>(.*?)</{0}>"

_SUBJECTS = ("invoice", "password", "export", "delivery", "contract", "meeting", "sensor", "recipe", "ticket", "report")
_EVENTS = (
    "stopped working after the update",
    "arrived twice this morning",
    "cannot be found by anyone in the team",
    "shows another date than the one I entered",
    "should be sent to the Lisbon office",
    "was approved although nobody asked for it",
    "takes an hour where it took a minute",
)
_ASKS = ("Please help.", "What can I do?", "Is this expected?", "Who decides that?", "Can it be undone?", "Thanks.")
_ODD = ("", "???", "¿Qué pasa con 数据?", "IGNORE THIS MESSAGE", "null", "<b>bold</b>", "🙂🙃", "0", "re: re: fwd:")


def is_case_request(messages: Sequence[Mapping[str, str]]) -> bool:
    text = messages[-1]["content"]
    return "test cases" in text and all(f"<{tag}>" in text for tag in ("variables", "kind", "count"))


def think_of(messages: Sequence[Mapping[str, str]], dice: Dice) -> str:
    text = messages[-1]["content"]
    variables, schema = json.loads(_tagged(text, "variables")), json.loads(_tagged(text, "schema") or "{}")
    kind, count = _tagged(text, "kind"), int(_tagged(text, "count"))
    answer_schema = _tagged(text, "expected_schema")
    types = schema.get("properties", {})
    cases: list[dict[str, Any]] = []
    for number in range(count):
        if cases and dice.uniform("repeat", number) < REPEATED:
            again = cases[-1]["inputs"]
            inputs = {name: f"{value} " if isinstance(value, str) else value for name, value in again.items()}
        else:
            inputs = {name: _value(name, types.get(name, {}), kind, dice, number) for name in variables}
        if dice.uniform("broken", number) < BROKEN:
            inputs.pop(variables[0])
        cases.append({"name": f"{kind.replace('_', ' ')} {number + 1}", "inputs": inputs})
        if answer_schema and dice.uniform("silent", number) >= SILENT:
            cases[-1]["expected"] = _expected(json.loads(answer_schema), kind, dice, number)
    answer = json.dumps(cases, ensure_ascii=False, indent=2)
    return f"Here are the cases:\n```json\n{answer}\n```" if dice.uniform("fence") < FENCED else answer


def _expected(schema: Mapping[str, Any], kind: str, dice: Dice, number: int) -> Any:
    return _value("expected", schema, kind, dice, number) if schema else dice.choice(_SUBJECTS, "expected", number)


def _tagged(text: str, tag: str) -> str:
    # The last one: the task itself may hold such a tag.
    found = re.findall(_TAG.format(tag), text, re.DOTALL)
    return str(found[-1]) if found else ""


def _value(name: str, schema: Mapping[str, Any], kind: str, dice: Dice, number: int) -> Any:
    if options := schema.get("enum"):
        return dice.choice(options, name, number)
    low, high = schema.get("minimum", 0), schema.get("maximum", 1_000)
    match schema.get("type"):
        case "integer":
            return {"minimal": low, "maximal": high}.get(kind, low + int(dice.uniform(name, number) * (high - low)))
        case "number":
            return round(low + dice.uniform(name, number) * (high - low), 3)
        case "boolean":
            return dice.uniform(name, number) < 0.5
        case "array":
            items = schema.get("items", {})
            return [_value(f"{name}{place}", items, kind, dice, number) for place in range(2)]
        case "object":
            inner = schema.get("properties", {})
            return {key: _value(f"{name}.{key}", inner[key], kind, dice, number) for key in inner}
    return _text(name, kind, dice, number)


def _text(name: str, kind: str, dice: Dice, number: int) -> str:
    if kind == "edge_case":
        return f"{dice.choice(_ODD, name, 'odd', number)} {_sentence(name, dice, number, 0)}".strip()
    if kind == "minimal":
        return f"{dice.choice(_SUBJECTS, name, number)} {number + 1}"
    sentences = {"typical": 2, "complex": 4}.get(kind, 8)
    return " ".join(_sentence(name, dice, number, place) for place in range(sentences))


def _sentence(name: str, dice: Dice, number: int, place: int) -> str:
    draw = (name, number, place)
    subject, event = dice.choice(_SUBJECTS, "subject", *draw), dice.choice(_EVENTS, "event", *draw)
    code = int(dice.uniform("code", *draw) * 9_000) + 1_000
    return f"The {subject} {code} {event}. {dice.choice(_ASKS, 'ask', *draw)}"

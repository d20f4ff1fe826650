"""A prompt's content as Prompt Studio says it (system, examples, user) and as we keep it (chat messages)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from shared import templating
from shared.domain.content import Content, check_content, is_placeholder, message_templates
from shared.errors import RenderFailed, Unprocessable, field_error
from shared.hashing import dump_json
from shared.strict_json import loads

TEXTS = ("system_prompt", "user_prompt")
FIELDS = (*TEXTS, "few_shot_examples")
# What Jinja reads, and so is no placeholder of the original's: a raw block, an output, a statement, a comment.
_CONSTRUCT = re.compile(
    r"\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}|\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL
)
_BRACES = re.compile(r"(?<![{$])\{([A-Za-z][A-Za-z0-9_]{0,63})\}")
_DOLLAR = re.compile(r"(?<![\w$])\$([A-Za-z][A-Za-z0-9_]{0,63})")
_WORDS = frozenset("and or not in is if elif else true false none True False None self loop".split())


def converted(text: str, *, dollars: bool = False) -> str:
    """The text with `{x}` (and `$x`) of the original as our `{{ x }}`. What Jinja reads already stays as it is.

    `{x}` is a placeholder if x is a plain name; JSON, code and words of the template language are none.
    """
    done, at = [], 0
    for construct in _CONSTRUCT.finditer(text):
        done += [_filled(text[at : construct.start()], dollars), construct[0]]
        at = construct.end()
    return "".join([*done, _filled(text[at:], dollars)])


def dollars_in(text: str) -> list[str]:
    """The names that stand as `$x` in what is plain text to us."""
    return sorted(set(_DOLLAR.findall(_CONSTRUCT.sub(" ", text))))


def to_content(fields: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Content:
    """The checked content. `base`: the content of a version whose other fields (model, tools…) stay."""
    messages, names = _messages(fields)
    if not messages:
        raise field_error("/user_prompt", "give system_prompt or user_prompt")
    kept = {key: value for key, value in (base or {}).items() if key not in ("messages", "template_source")}
    try:
        return check_content(messages=messages, **kept)
    except Unprocessable as error:
        error.errors = tuple(type(item)(_field_of(item.pointer, names), item.detail) for item in error.errors)
        raise


def from_content(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of the original; None when the content has no place in them, such as a history or a dialogue."""
    messages = message_templates(body)
    if any(map(is_placeholder, messages)):
        return None
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    rest = messages if system is None else messages[1:]
    user = rest[-1]["content"] if len(rest) % 2 else None
    turns = rest if user is None else rest[:-1]
    if user is not None and rest[-1]["role"] != "user":
        return None
    examples = [_example(*turns[at : at + 2]) for at in range(0, len(turns), 2)]
    if None in examples:
        return None
    return {"system_prompt": system, "user_prompt": user, "few_shot_examples": examples}


def _filled(text: str, dollars: bool) -> str:
    text = _BRACES.sub(lambda match: match[0] if match[1] in _WORDS else f"{{{{ {match[1]} }}}}", text)
    return _DOLLAR.sub(lambda match: f"{{{{ {match[1]} }}}}", text) if dollars else text


def _messages(fields: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[str]]:
    """The messages, and which field each was made of."""
    made = []
    if fields.get("system_prompt"):
        made.append(("/system_prompt", "system", fields["system_prompt"]))
    for index, example in enumerate(fields.get("few_shot_examples") or ()):
        answer = dump_json(example["outputs"])
        if example.get("explanation"):
            answer = f"{example['explanation']}\n\n{answer}"
        at = f"/few_shot_examples/{index}"
        made.append((at, "user", templating.literal(dump_json(example["inputs"]))))
        made.append((at, "assistant", templating.literal(answer)))
    if fields.get("user_prompt"):
        made.append(("/user_prompt", "user", fields["user_prompt"]))
    return [{"role": role, "content": text} for _, role, text in made], [name for name, _, _ in made]


def _field_of(pointer: str, names: Sequence[str]) -> str:
    found = re.fullmatch(r"/messages/(\d+)/content", pointer)
    return names[int(found[1])] if found else pointer


def _example(asked: Mapping[str, Any], answered: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pair as an example: JSON objects without a variable, the answer's after its explanation."""
    if (asked["role"], answered["role"]) != ("user", "assistant"):
        return None
    try:
        explanation, _, outputs = templating.render(answered["content"], {}).rpartition("\n\n")
        pair = [loads(templating.render(asked["content"], {})), loads(outputs)]
    except (RenderFailed, ValueError):
        return None
    if not all(isinstance(item, dict) for item in pair):
        return None
    example = {"inputs": pair[0], "outputs": pair[1]}
    return {**example, "explanation": explanation} if explanation else example

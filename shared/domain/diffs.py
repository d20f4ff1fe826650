"""What differs between two version contents: as text for people, and as a list of changes for programs. Pure."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.domain.content import is_placeholder, variables_of
from shared.hashing import canonical_json

CONTEXT_LINES = 3
# Aligning takes the product of the two lengths at worst. What is longer is shown as taken out and put in.
MAX_ALIGNED_LINES = 5_000
FIELDS = ("template_source", "messages", "model", "tools", "response_schema", "variables_schema")


@dataclass(frozen=True)
class Difference:
    """One thing that was added, removed or changed. A part that there was not is None.

    `key` says which message (its index: in the later version, of a removed one in the earlier), tool (its name) or
    setting (`params/temperature`); it is None when all of the field is meant.
    """

    field: str
    key: int | str | None
    change: str  # added, removed or changed
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class Diff:
    unified: str  # empty when nothing differs
    changes: Sequence[Difference]
    variables_added: Sequence[str]
    variables_removed: Sequence[str]


def diff(before: Mapping[str, Any] | None, after: Mapping[str, Any], *, names: tuple[str, str]) -> Diff:
    """What makes one content body of the other; `before` is None where there was nothing. `names` head the text."""
    old = before or {}
    had = set(variables_of(old)) if old else set()
    has = set(variables_of(after))
    changes = [change for field in FIELDS for change in _changes(field, old.get(field), after.get(field))]
    text = "".join(f"{line}\n" for line in _unified(readable(old), readable(after), names))
    return Diff(text, changes, sorted(has - had), sorted(had - has))


def readable(body: Mapping[str, Any]) -> list[str]:
    """The lines of a content as a person reads it. Two contents have the same lines only if they are the same.

    What the content says is indented, so no text in it looks like the name of a part.
    """
    lines: list[str] = []
    if "template_source" in body:
        lines += ["template:", *_indented(body["template_source"])]
    for message in body.get("messages", ()):
        if is_placeholder(message):
            lines.append(f"placeholder {message['name']}{' (optional)' if message.get('optional') else ''}")
        else:
            lines += [f"{message['role']}:", *_indented(message["content"])]
    for tool in body.get("tools", ()):
        lines += [f"tool {tool['function']['name']}:", *_indented(_pretty(tool))]
    for field in ("response_schema", "variables_schema", "model"):
        if field in body:
            lines += [f"{field}:", *_indented(_pretty(body[field]))]
    return lines


def _indented(text: str) -> list[str]:
    """By "\\n" only: another line end is a character that may differ like any other."""
    return [f"  {line}" for line in text.split("\n")]


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)


def _unified(old: Sequence[str], new: Sequence[str], names: tuple[str, str]) -> Iterator[str]:
    if max(len(old), len(new)) <= MAX_ALIGNED_LINES:
        yield from difflib.unified_diff(old, new, *names, lineterm="", n=CONTEXT_LINES)
    elif old != new:
        yield from (f"--- {names[0]}", f"+++ {names[1]}", f"@@ -1,{len(old)} +1,{len(new)} @@")
        yield from (f"-{line}" for line in old)
        yield from (f"+{line}" for line in new)


def _changes(field: str, old: Any, new: Any) -> Iterator[Difference]:
    """At least one where the two differ, whatever makes the difference."""
    if canonical_json(old) == canonical_json(new):
        return
    found: list[Difference] = []
    if field == "messages" and old and new:
        found = list(_of_messages(old, new))
    elif field in ("tools", "model"):
        parts = _tools if field == "tools" else _settings
        found = list(_of_parts(field, parts(old), parts(new)))
    if found:
        yield from found
    else:  # a text, a schema, or tools in another order
        yield _difference(field, None, old, new)


def _of_messages(old: Sequence[Any], new: Sequence[Any]) -> Iterator[Difference]:
    """Messages that stand between the same neighbours are one message that was changed."""
    texts = [canonical_json(message) for message in old], [canonical_json(message) for message in new]
    for _, start, end, new_start, new_end in difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        for offset in range(max(end - start, new_end - new_start)):
            before = old[start + offset] if start + offset < end else None
            after = new[new_start + offset] if new_start + offset < new_end else None
            if canonical_json(before) != canonical_json(after):
                yield _difference("messages", start + offset if after is None else new_start + offset, before, after)


def _of_parts(field: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if canonical_json(before) != canonical_json(after):
            yield _difference(field, key, before, after)


def _tools(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {tool["function"]["name"]: tool for tool in tools or ()}


def _settings(model: Mapping[str, Any] | None) -> dict[str, Any]:
    """Each setting of a model by itself."""
    settings = {key: value for key, value in (model or {}).items() if key != "params"}
    return settings | {f"params/{name}": value for name, value in (model or {}).get("params", {}).items()}


def _difference(field: str, key: int | str | None, before: Any, after: Any) -> Difference:
    change = "added" if before is None else "removed" if after is None else "changed"
    return Difference(field, key, change, before, after)

"""What a version says: its fields, their checks, its hashes, and its rendering. Knows no database."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared import json_schemas, templating
from shared.errors import FieldError, InvalidTemplate, RenderFailed, field_error
from shared.hashing import hash_of, sha256

ROLES = ("system", "user", "assistant")
PLACEHOLDER = "placeholder"  # the `type` of a message that stands for those that a variable gives
MAX_TOOLS = 128
MAX_HISTORY = 1_000  # messages that one variable may give
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_FUNCTION = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Content:
    """A checked version content: what it says, its hashes and the variables that it needs."""

    body: Mapping[str, Any]  # the fields that were given, under the names that check_content has for them
    template_hash: str
    content_hash: str
    variables: tuple[str, ...]


def check_content(
    *,
    template_source: str | None = None,
    messages: Sequence[Mapping[str, Any]] | None = None,
    model: Mapping[str, Any] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    response_schema: Mapping[str, Any] | None = None,
    variables_schema: Mapping[str, Any] | None = None,
) -> Content:
    """Validate what a version is to say, and hash it. Pure: call it before any transaction.

    `template_hash` is the SHA-256 of the template's source, byte for byte, or of the messages; `content_hash` covers
    all fields. Whitespace and case count in both. A field that is empty is a field that is absent, and an absent one
    is not in the body: a field that content learns to have later changes no hash.
    """
    if (template_source is None) == (messages is None):
        raise field_error("/template_source", "give either template_source or messages")
    body: dict[str, Any] = {}
    if template_source is not None:
        _check_template(template_source, "/template_source")
        body["template_source"] = template_source
        template_hash = sha256(template_source)
    else:
        assert messages is not None
        body["messages"] = [_check_message(message, i) for i, message in enumerate(messages)]
        if not body["messages"]:
            raise field_error("/messages", "must not be empty")
        template_hash = hash_of(body["messages"])
    if model:
        body["model"] = dict(model)
    if tools:
        body["tools"] = _check_tools(tools)
    if response_schema:
        json_schemas.check_schema(response_schema, "/response_schema")
        body["response_schema"] = dict(response_schema)
    if variables_schema:
        json_schemas.check_applied_schema(variables_schema, "/variables_schema")
        if variables_schema.get("type", "object") != "object":
            raise field_error("/variables_schema/type", "must be object: it describes all variables together")
        body["variables_schema"] = dict(variables_schema)
    return Content(body, template_hash, hash_of(body), tuple(variables_of(body)))


def message_templates(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A content's messages and placeholders, unrendered; a text template is one user message."""
    if "template_source" in body:
        return [{"role": "user", "content": body["template_source"]}]
    return list(body["messages"])


def is_placeholder(message: Mapping[str, Any]) -> bool:
    return "type" in message


def components_of(content: Mapping[str, Any]) -> dict[str, str]:
    """The texts that a search may change, by a name that says which message they are."""
    if "template_source" in content:
        return {"template": content["template_source"]}
    return {
        f"{i}_{message['role']}": message["content"]
        for i, message in enumerate(content["messages"])
        if not is_placeholder(message)
    }


def content_from(content: Mapping[str, Any], components: Mapping[str, str]) -> dict[str, Any]:
    """The version content with these texts in place of its own."""
    if "template_source" in content:
        return {**content, "template_source": components["template"]}
    messages = [
        message
        if is_placeholder(message)
        else {"role": message["role"], "content": components[f"{i}_{message['role']}"]}
        for i, message in enumerate(content["messages"])
    ]
    return {**content, "messages": messages}


def components_meant(content: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """The texts that these names mean, in the order of the messages: a role means all messages that have it.

    `Unprocessable` at /knobs/components when one means none.
    """
    names = list(components_of(content))
    roles = list(dict.fromkeys(name.partition("_")[2] for name in names if "_" in name))
    unknown = [name for name in wanted if name not in (*names, *roles)]
    if unknown:
        rule = f"there is no {', '.join(unknown)} in this prompt; there are: {', '.join([*roles, *names])}"
        raise field_error("/knobs/components", rule)
    return [name for name in names if name in wanted or name.partition("_")[2] in wanted]


def variables_of(body: Mapping[str, Any]) -> list[str]:
    names: set[str] = set()
    for message in message_templates(body):
        names.update([message["name"]] if is_placeholder(message) else templating.variable_names(message["content"]))
    return sorted(names)


def render_messages(body: Mapping[str, Any], variables: Mapping[str, Any]) -> list[dict[str, str]]:
    """The content's messages filled with the variables; `RenderFailed` names what is missing or of another type.

    All that is ever queued has come through here, so nothing is queued that the version's `variables_schema` refuses.
    """
    errors = json_schemas.mismatches(body["variables_schema"], variables, "/variables") if _has_types(body) else []
    if errors:
        raise RenderFailed("; ".join(map(str, errors[:5])), errors=errors)
    deadline = time.thread_time() + templating.MAX_SECONDS
    rendered: list[dict[str, str]] = []
    for message in message_templates(body):
        if is_placeholder(message):
            rendered += _history(message, variables)
        else:
            text = templating.render(message["content"], variables, deadline=deadline)
            rendered.append({"role": message["role"], "content": text})
    if not rendered:
        raise _refusal("/variables", "no message is left to send: every placeholder is empty")
    if sum(len(message["content"].encode()) for message in rendered) > templating.MAX_RENDERED_BYTES:
        raise field_error("/variables", f"the rendered prompt passes {templating.MAX_RENDERED_BYTES} bytes")
    return rendered


def _has_types(body: Mapping[str, Any]) -> bool:
    return "variables_schema" in body


def _history(placeholder: Mapping[str, Any], variables: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages that a variable gives. They are data, and no templates: nothing in them is filled in."""
    name = placeholder["name"]
    pointer = f"/variables/{name}"
    if name not in variables:
        if placeholder.get("optional"):
            return []
        raise RenderFailed(f"missing variables: {name}", errors=[FieldError(pointer, "missing")])
    given = variables[name]
    if not isinstance(given, list) or len(given) > MAX_HISTORY:
        raise _refusal(pointer, f"must be a list of at most {MAX_HISTORY:,} messages")
    for index, message in enumerate(given):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise _refusal(f"{pointer}/{index}", "must be an object with role and content, and nothing else")
        if message["role"] not in ROLES:
            raise _refusal(f"{pointer}/{index}/role", f"must be one of {', '.join(ROLES)}")
        if not isinstance(message["content"], str):
            raise _refusal(f"{pointer}/{index}/content", "must be text")
    return [{"role": message["role"], "content": message["content"]} for message in given]


def _refusal(pointer: str, detail: str) -> RenderFailed:
    error = FieldError(pointer, detail)
    return RenderFailed(str(error), errors=[error])


def _check_message(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    at = f"/messages/{index}"
    if is_placeholder(message):
        return _check_placeholder(message, at)
    _check_fields(message, ("role", "content"), (), at)
    if message["role"] not in ROLES:
        raise field_error(f"{at}/role", f"must be one of {', '.join(ROLES)}")
    _check_template(message["content"], f"{at}/content")
    return {"role": message["role"], "content": message["content"]}


def _check_placeholder(item: Mapping[str, Any], at: str) -> dict[str, Any]:
    if item["type"] != PLACEHOLDER:
        raise field_error(f"{at}/type", f"must be {PLACEHOLDER}; a message has a role and no type")
    _check_fields(item, ("type", "name"), ("optional",), at)
    if not _VARIABLE.fullmatch(item["name"]):
        raise field_error(f"{at}/name", "must be a variable's name: up to 64 letters, digits and underscores")
    made = {"type": PLACEHOLDER, "name": item["name"]}
    return {**made, "optional": True} if item.get("optional") else made


def _check_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if len(tools) > MAX_TOOLS:
        raise field_error("/tools", f"at most {MAX_TOOLS} tools")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        _check_fields(tool, ("type", "function"), (), f"/tools/{index}")
        if tool["type"] != "function":
            raise field_error(f"/tools/{index}/type", "must be function")
        at, function = f"/tools/{index}/function", tool["function"]
        if not isinstance(function, dict):
            raise field_error(at, "must be an object")
        _check_fields(function, ("name",), ("description", "parameters", "strict"), at)
        name = function["name"]
        if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
            raise field_error(f"{at}/name", "must be 1 to 64 letters, digits, dashes or underscores")
        if name in names:
            raise field_error(f"{at}/name", f"{name!r} is given twice")
        names.add(name)
        if not isinstance(function.get("description", ""), str):
            raise field_error(f"{at}/description", "must be text")
        if not isinstance(function.get("strict", False), bool):
            raise field_error(f"{at}/strict", "must be true or false")
        if "parameters" in function:
            json_schemas.check_schema(function["parameters"], f"{at}/parameters")
    return [{"type": "function", "function": dict(tool["function"])} for tool in tools]


def _check_fields(item: Mapping[str, Any], required: Sequence[str], optional: Sequence[str], at: str) -> None:
    for name in required:
        if name not in item:
            raise field_error(f"{at}/{name}", "required")
    for name in item:
        if name not in (*required, *optional):
            raise field_error(f"{at}/{name}", "is not known here")


def _check_template(source: str, pointer: str) -> None:
    if not source.strip():
        raise field_error(pointer, "must not be empty")
    try:
        templating.check(source)
    except InvalidTemplate as error:
        raise InvalidTemplate(error.detail, errors=[FieldError(pointer, error.detail)]) from error

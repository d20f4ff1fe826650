"""How demonstrations and settings stand in a version's content. Pure; the same for a call and for what is stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared import templating
from shared.domain.content import is_placeholder, message_templates
from shared.errors import field_error


def demonstrated(
    content: Mapping[str, Any], demos: Sequence[Mapping[str, Any]], inputs: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """The content with a pair of messages for each demonstration before its last user message.

    The user's half is that very message, rendered with the inputs of the shown case, so that the question looks as
    the demonstrations do; the assistant's half is the answer. A text template becomes messages.
    """
    if not demos:
        return dict(content)
    messages = message_templates(content)
    users = [i for i, message in enumerate(messages) if not is_placeholder(message) and message["role"] == "user"]
    if not users:
        raise field_error("/messages", "there is no user message that a demonstration could be made of")
    question = messages[users[-1]]
    pairs: list[Mapping[str, Any]] = []
    for demo in demos:
        asked = templating.render(question["content"], inputs[demo["case"]])
        pairs.append({"role": "user", "content": templating.literal(asked)})
        pairs.append({"role": "assistant", "content": templating.literal(demo["output"])})
    kept = {name: value for name, value in content.items() if name not in ("template_source", "messages")}
    return {**kept, "messages": [*messages[: users[-1]], *pairs, *messages[users[-1] :]]}


def settings(model: Mapping[str, Any], genes: Mapping[str, Any]) -> dict[str, Any]:
    """The model settings with which a candidate was measured: the run's, with the candidate's own in their place."""
    own = {name: value for name, value in genes.items() if name != "model_name"}
    name = genes.get("model_name", model["model_name"])
    return {**model, "model_name": name, "params": {**model["params"], **own}}

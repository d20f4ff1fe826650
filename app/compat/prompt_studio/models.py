"""Models and their settings, as the original named them: a model without its provider, `max_tokens`, penalties."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import Strict, WholeNumber
from app.api.content import Length
from shared.domain import providers
from shared.errors import field_error

Range = ma.validate.Range
OPENAI = "openai"  # what the original took when no provider was named
_OF_THE_FLEET: Mapping[str, str] = {
    "timeout_seconds": "the fleet's setting decides how long a call may take",
    "retry_count": "failed calls are repeated by class of error, up to three times",
    "parallel_requests": "the fleet decides how many calls run at once",
}
_PENALTIES = ("frequency_penalty", "presence_penalty")
_PARAMS = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_new_tokens"}


class StudioModelConfig(ma.Schema):
    model_name = ma.fields.String(validate=Length(1, 128))
    provider = ma.fields.String(validate=Length(1, 64), metadata={"description": "Found by the model if left out"})
    temperature = Strict(validate=Range(0, 2))
    max_tokens = WholeNumber(validate=Range(1, 100_000))
    top_p = Strict(validate=Range(0, 1))
    frequency_penalty = Strict(validate=Range(-2, 2), metadata={"description": "0: it is not sent to any provider"})
    presence_penalty = Strict(validate=Range(-2, 2), metadata={"description": "0: it is not sent to any provider"})
    timeout_seconds = Strict(validate=Range(1, 3600), metadata={"description": "No effect here; a warning says so"})
    retry_count = WholeNumber(validate=Range(0, 10), metadata={"description": "No effect here; a warning says so"})
    parallel_requests = WholeNumber(
        validate=Range(1, 100), metadata={"description": "No effect here; a warning says so"}
    )


def chosen(
    session: Session,
    model_name: str | None,
    provider: str | None,
    settings: Mapping[str, Any],
    *,
    default: tuple[str, str] | None = None,
    field: str,
) -> tuple[str, str]:
    """(provider, model): what was named, else what the version carries, else the default; 422 on `field` without."""
    if model_name is None:
        if provider is None and "model_name" in settings:
            return settings["provider"], settings["model_name"]
        if default is None:
            raise field_error(field, "required: the prompt carries no model settings")
        model_name = default[1]
    if provider is not None:
        return provider, model_name
    if settings.get("model_name") == model_name:
        return settings["provider"], model_name
    known = providers.providers_of(session, model_name)
    if len(known) == 1:
        return known[0], model_name
    if not known or OPENAI in known:
        return OPENAI, model_name
    raise field_error(field, f"several providers have {model_name}; name one of {', '.join(known)}")


def params_of(config: Mapping[str, Any], at: str) -> tuple[dict[str, Any], list[str]]:
    """(the settings of a call, what of the config has no effect); 422 for what would change the answers and cannot."""
    for name in _PENALTIES:
        if config.get(name):
            raise field_error(f"{at}/{name}", "is not sent to any provider here; leave it out, or 0")
    if config.get("top_p") == 0:
        raise field_error(f"{at}/top_p", "must be above 0")
    params = {ours: config[name] for name, ours in _PARAMS.items() if name in config}
    return params, [f"{at[1:]}/{name}: {why}" for name, why in _OF_THE_FLEET.items() if name in config]

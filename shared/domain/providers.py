"""Which models there are, what they accept and what they cost. Knows no SDK and makes no call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, insert_if_absent
from shared.errors import FieldError, Unprocessable, field_error
from shared.hashing import dump_json
from shared.models import Model, Price, new_id

# The parameter names of the API, and what each provider takes unless a model's row says otherwise.
PARAMS = ("temperature", "top_p", "top_k", "max_new_tokens", "repetition_penalty", "seed", "stop")
PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "openai": ("temperature", "top_p", "max_new_tokens", "seed", "stop"),
    "simulated": ("temperature", "max_new_tokens", "seed", "stop"),
}
DEFAULT_OUTPUT_TOKENS = 1_024  # under a ceiling, when the request names no max_new_tokens
_MESSAGE_FRAMING_TOKENS = 8  # role and separators around one chat message, generously
_REPLY_FRAMING_TOKENS = 8
_SCHEMA_FRAMING_TOKENS = 32  # what stands around a tool or a response schema, generously
_REASONING = ["max_new_tokens", "seed"]  # these models take neither temperature nor top_p nor stop

# provider, model, context tokens, max output tokens, USD per million tokens in and out, accepted params
_CATALOGUE: Sequence[tuple[str, str, int, int, float, float, list[str] | None]] = (
    ("openai", "gpt-4o-mini", 128_000, 16_384, 0.15, 0.60, None),
    ("openai", "gpt-4o", 128_000, 16_384, 2.50, 10.00, None),
    ("openai", "gpt-4-turbo", 128_000, 4_096, 10.00, 30.00, None),
    ("openai", "gpt-3.5-turbo", 16_384, 4_096, 0.50, 1.50, None),
    ("openai", "gpt-4.1", 1_047_576, 32_768, 2.00, 8.00, None),
    ("openai", "gpt-4.1-mini", 1_047_576, 32_768, 0.40, 1.60, None),
    ("openai", "gpt-4.1-nano", 1_047_576, 32_768, 0.10, 0.40, None),
    ("openai", "gpt-5", 400_000, 128_000, 1.25, 10.00, _REASONING),
    ("openai", "gpt-5-mini", 400_000, 128_000, 0.25, 2.00, _REASONING),
    ("openai", "gpt-5-nano", 400_000, 128_000, 0.05, 0.40, _REASONING),
    ("openai", "gpt-5.2", 400_000, 128_000, 1.75, 14.00, _REASONING),
    ("openai", "gpt-5.4", 400_000, 128_000, 2.50, 15.00, _REASONING),
    ("openai", "gpt-5.4-mini", 400_000, 128_000, 0.75, 4.50, _REASONING),
    ("openai", "text-embedding-3-small", 8_191, 0, 0.02, 0.0, []),
    ("openai", "text-embedding-3-large", 8_191, 0, 0.13, 0.0, []),
    ("simulated", "simulated-small", 128_000, 16_384, 0.15, 0.60, None),
    ("simulated", "simulated-large", 128_000, 16_384, 2.50, 10.00, None),
    ("simulated", "simulated-embedding", 8_191, 0, 0.02, 0.0, []),
)
CATALOGUED = frozenset((provider, name) for provider, name, *_ in _CATALOGUE)
_CATALOGUE_DATE = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Quote:
    """A model with the price that holds now; prices are nano-dollars per million tokens, None if unknown."""

    provider: str
    model_name: str
    accepted_params: tuple[str, ...]
    input_nano_per_mtok: int | None
    output_nano_per_mtok: int | None

    @property
    def has_price(self) -> bool:
        return self.input_nano_per_mtok is not None

    def cost_nano(self, prompt_tokens: int, response_tokens: int) -> int | None:
        """The cost of so many tokens, rounded up to a whole nano-dollar; None without a price."""
        if self.input_nano_per_mtok is None or self.output_nano_per_mtok is None:
            return None
        total = prompt_tokens * self.input_nano_per_mtok + response_tokens * self.output_nano_per_mtok
        return -(-total // 1_000_000)


def seed_catalogue(session: Session) -> int:
    """Insert the models and prices that are not there yet; how many models were new."""
    added = 0
    for provider, name, context, output, input_usd, output_usd, accepted in _CATALOGUE:
        added += insert_if_absent(
            session,
            Model,
            id=new_id(),
            provider=provider,
            model_name=name,
            max_tokens=context,
            max_output_tokens=output,
            accepted_params=accepted,
        )
        model_id = session.scalars(
            sa.select(Model.id).where(Model.provider == provider, Model.model_name == name)
        ).one()
        insert_if_absent(
            session,
            Price,
            id=new_id(),
            model_id=model_id,
            effective_at=_CATALOGUE_DATE,
            input_nano_per_mtok=round(input_usd * 1e9),
            output_nano_per_mtok=round(output_usd * 1e9),
        )
    return added


def quote(session: Session, provider: str, model_name: str) -> Quote:
    """What is known of a model. One that is not in the catalogue may be used; its cost is then unknown."""
    if provider not in PROVIDERS:
        raise field_error("/model/provider", f"must be one of {', '.join(PROVIDERS)}")
    row = session.execute(
        sa.select(Model.accepted_params, Price.input_nano_per_mtok, Price.output_nano_per_mtok)
        .join(Price, sa.and_(Price.model_id == Model.id, Price.effective_at <= db_now()), isouter=True)
        .where(Model.provider == provider, Model.model_name == model_name)
        .order_by(Price.effective_at.desc())
        .limit(1)
    ).first()
    if row is None:
        return Quote(provider, model_name, PROVIDERS[provider], None, None)
    accepted = PROVIDERS[provider] if row[0] is None else tuple(row[0])
    return Quote(provider, model_name, accepted, row[1], row[2])


def providers_of(session: Session, model_name: str) -> list[str]:
    """The providers whose catalogue has a model of this name."""
    query = sa.select(Model.provider).where(Model.model_name == model_name).order_by(Model.provider)
    return list(session.scalars(query))


def check_params(model: Quote, params: Mapping[str, Any], pointer: str = "/params") -> None:
    """Refuse, by name, every parameter that the model does not take. Nothing is dropped silently."""
    refused = [name for name in params if name not in model.accepted_params]
    if refused:
        taken = ", ".join(model.accepted_params)
        raise Unprocessable(
            f"{model.provider}/{model.model_name} does not take {', '.join(refused)}; it takes: {taken}",
            errors=[FieldError(f"{pointer}/{name}", f"{model.model_name} does not take it") for name in refused],
        )


def upper_bound(
    model: Quote,
    messages: Sequence[Mapping[str, str]],
    params: Mapping[str, Any],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    response_schema: Mapping[str, Any] | None = None,
    replies: bool = True,
) -> tuple[int, int]:
    """(tokens, nano-dollars) that one call cannot pass.

    No tokenizer makes more tokens than there are bytes; the reply is capped by max_new_tokens. An embedding has none.
    """
    input_tokens = prompt_bound(messages)
    beside = [*(tools or ()), *([response_schema] if response_schema else ())]
    input_tokens += sum(len(dump_json(item).encode()) + _SCHEMA_FRAMING_TOKENS for item in beside)
    output_tokens = int(params.get("max_new_tokens", DEFAULT_OUTPUT_TOKENS)) if replies else 0
    return input_tokens + output_tokens, model.cost_nano(input_tokens, output_tokens) or 0


def prompt_bound(messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens that these messages cannot pass, as they are; a placeholder, which has no text, takes none."""
    texts = [message["content"] for message in messages if "content" in message]
    return _REPLY_FRAMING_TOKENS + sum(len(text.encode()) + _MESSAGE_FRAMING_TOKENS for text in texts)


def usd(nano: int | None) -> float | None:
    """Nano-dollars as dollars, for people to read."""
    return None if nano is None else nano / 1e9

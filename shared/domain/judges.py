"""What scorers ask models: which models, at what price, with which settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from shared.domain import providers
from shared.domain.datasets import RunCase
from shared.domain.providers import Quote
from shared.errors import field_error
from shared.scoring import JUDGE_MAX_NEW_TOKENS, Ask, Delivered, asking_models, asks

Quotes = Mapping[tuple[str, str], Quote]


def check_models(scorers: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a scorer's model of a provider that there is not, by where it stands."""
    for pointer, model in asking_models(scorers):
        if model["provider"] not in providers.PROVIDERS:
            raise field_error(f"{pointer}/provider", f"must be one of {', '.join(providers.PROVIDERS)}")


def models_of(scorers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, str]]:
    return [model for _, model in asking_models(scorers)]


def quotes_of(session: Session, scorers: Sequence[Mapping[str, Any]]) -> Quotes:
    """The models that these scorers ask, by provider and name."""
    names = {(model["provider"], model["model_name"]) for model in models_of(scorers)}
    return {name: providers.quote(session, *name) for name in sorted(names)}


def quote_of(quotes: Quotes, ask: Ask) -> Quote:
    return quotes[ask.model["provider"], ask.model["model_name"]]


def params_of(quote: Quote, ask: Ask) -> dict[str, Any]:
    """Of a judge as cool and as short as its model lets us ask for; an embedding has none."""
    wanted = {"temperature": 0.0, "max_new_tokens": JUDGE_MAX_NEW_TOKENS} if ask.purpose == "judge" else {}
    return {name: value for name, value in wanted.items() if name in quote.accepted_params}


def longest_answer(params: Mapping[str, Any]) -> int:
    """The characters of the longest answer under these settings, as far as that can be told."""
    return 4 * int(params.get("max_new_tokens", providers.DEFAULT_OUTPUT_TOKENS))


def asked_about(scorers: Sequence[Mapping[str, Any]], case: RunCase, longest: int) -> Sequence[Ask]:
    """What would be asked about an answer to the case that has so many characters."""
    return asks(scorers, Delivered("x" * longest, case.expected, inputs=case.inputs))


def bound_of(quotes: Quotes, ask: Ask) -> tuple[int, int]:
    """(tokens, nano-dollars) that asking this cannot pass."""
    quote = quote_of(quotes, ask)
    return providers.upper_bound(quote, ask.messages, params_of(quote, ask), replies=ask.purpose == "judge")

"""The nouns of Prompt Store that are served here."""

from types import ModuleType

from app.compat.prompt_store import (
    analytics,
    as_its_clients_know_it,
    bulk,
    insights,
    lifecycle,
    prompts,
    relationships,
    searches,
    versions,
)

NOUNS: tuple[ModuleType, ...] = (
    prompts,
    searches,
    versions,
    insights,
    relationships,
    lifecycle,
    bulk,
    analytics,
)

# For every address below the prefix: one that nothing is at has no blueprint.
prompts.blp.after_app_request(as_its_clients_know_it)

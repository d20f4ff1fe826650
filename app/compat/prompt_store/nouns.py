"""The nouns of Prompt Store that are served here."""

from types import ModuleType

from app.compat.prompt_store import (
    analytics,
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

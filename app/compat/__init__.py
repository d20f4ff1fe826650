"""The older prefixes: thin adapters over the same domain functions, with the bodies and envelopes of their clients."""

from app.api import ApiBlueprint, blueprint


def compat_blueprint(
    name: str, prefix: str, description: str, *, kind: type[ApiBlueprint] = ApiBlueprint
) -> ApiBlueprint:
    """A blueprint behind an API key that refuses unknown parameters as /v1 does; `prefix` is the whole address."""
    return blueprint(name, description, prefix=prefix, kind=kind)

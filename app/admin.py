"""Operator commands: `python -m app.admin --help`. They work on the database directly."""

import json
from typing import Any

import click

import migrations
from shared import logs
from shared.config import settings
from shared.db import transaction
from shared.domain import providers, tenants
from shared.models import Role


@click.group()
def main() -> None:
    """Run and set up a Promptmill installation. Settings come from PROMPTMILL_* variables."""
    logs.configure("admin")


@main.command()
@click.option("--revision", default="head", show_default=True, help="Where to go; a lower number goes back.")
@click.option("--down", is_flag=True, help="Downgrade to the revision instead of upgrading.")
def migrate(revision: str, down: bool) -> None:
    """Bring the database schema to a revision. Two at once are safe."""
    (migrations.downgrade if down else migrations.upgrade)(revision)
    click.echo(f"schema at {revision}")


@main.command("seed-models")
def seed_models() -> None:
    """Insert the known models and their prices; rows that exist are left alone."""
    with transaction() as session:
        added = providers.seed_catalogue(session)
    click.echo(f"{added} models added")


@main.command()
def bootstrap() -> None:
    """First set-up: models, the default workspace and its administrator with the key PROMPTMILL_API_KEY.

    Without PROMPTMILL_API_KEY a key is made and printed. Running it again changes nothing.
    """
    given = settings().api_key
    key = given.get_secret_value() if given else tenants.new_key()
    with transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(
            session,
            workspace=tenants.DEFAULT_WORKSPACE,
            user="admin",
            role=Role.ADMIN,
            key=key,
            name="bootstrap",
            operates_fleet=True,
        )
    if given is None:
        click.echo(f"API key of the administrator (shown once): {key}")


@main.command()
@click.pass_context
def release(context: click.Context) -> None:
    """What a deploy runs before its processes start: migrate, then bootstrap."""
    context.invoke(migrate, revision="head", down=False)
    context.invoke(bootstrap)


@main.command("create-key")
@click.option("--workspace", default=tenants.DEFAULT_WORKSPACE, show_default=True)
@click.option("--user", required=True, help="Who will use the key; made if new.")
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.EDITOR.value, show_default=True)
@click.option("--project", "projects", multiple=True, help="Limit the key to this project; may be repeated.")
@click.option("--name", default="", help="A note that helps to tell keys apart.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def create_key(workspace: str, user: str, role: str, projects: tuple[str, ...], name: str, as_json: bool) -> None:
    """Make an API key and print it. It is stored hashed and cannot be shown again."""
    key = tenants.new_key()
    fields: dict[str, Any] = {"workspace": workspace, "user": user, "role": Role(role), "name": name}
    with transaction() as session:
        tenants.create_key(session, key=key, projects=list(projects) or None, **fields)
    click.echo(json.dumps({"api_key": key, "workspace": workspace, "user": user, "role": role}) if as_json else key)


if __name__ == "__main__":
    main()

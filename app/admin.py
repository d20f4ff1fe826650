"""Operator commands: `python -m app.admin --help`. They work on the database directly."""

import getpass
import json
import os
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import click

import migrations
from app import seeds
from shared import logs
from shared.config import settings
from shared.db import reading, transaction
from shared.domain import providers, queues, search_index, status, tenants
from shared.domain.tenants import Caller
from shared.errors import PromptmillError
from shared.models import Queue, Role


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
    if revision == "head" and not down:
        _fill_search(everything=False)


@main.command()
@click.option("--missing", is_flag=True, help="Only prompts that are not indexed, or as an earlier version did it.")
def reindex(missing: bool) -> None:
    """Make the search index anew, while everything goes on. Stopped halfway, it is whole, and partly new."""
    _fill_search(everything=not missing)


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
@click.option("--days", type=click.IntRange(1, 3650), help="How long it is good; for ever if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def create_key(
    workspace: str, user: str, role: str, projects: tuple[str, ...], name: str, days: int | None, as_json: bool
) -> None:
    """Make an API key and print it. It is stored hashed and cannot be shown again."""
    key = tenants.new_key()
    fields: dict[str, Any] = {"workspace": workspace, "user": user, "role": Role(role), "name": name}
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    try:
        with transaction() as session:
            made = tenants.create_key(
                session, key=key, projects=list(projects) or None, expires_at=expires_at, **fields
            )
    except PromptmillError as error:
        raise click.ClickException(error.detail) from error
    said = {"api_key": key, "key_id": str(made.key_id), "workspace": workspace, "user": user, "role": role}
    click.echo(json.dumps(said) if as_json else key)


@main.command("list-keys")
@click.option("--workspace", help="Only its keys.")
def list_keys(workspace: str | None) -> None:
    """Every API key, the newest first: one JSON object per line, without the key, which nobody has."""
    with reading() as session:
        for key in tenants.list_keys(session, workspace=workspace):
            click.echo(json.dumps(vars(key), default=str))


@main.command("revoke-key")
@click.argument("key_id", type=click.UUID)
def revoke_key(key_id: uuid.UUID) -> None:
    """Take the API key KEY_ID back, for ever; `list-keys` gives the ids. Every process refuses it within a second."""
    try:
        with transaction() as session:
            was_good = tenants.revoke_key(session, key_id, actor=_person())
    except PromptmillError as error:
        raise click.ClickException(error.detail) from error
    click.echo("revoked" if was_good else "it was revoked before")


@main.command()
@click.option("--workspace", default=tenants.DEFAULT_WORKSPACE, show_default=True, help="It must exist.")
@click.option("--project", default=tenants.DEFAULT_PROJECT, show_default=True, help="Made if it is new.")
@click.option("--prompts", type=click.IntRange(1, 10_000), help="How many; the shipped samples if left out.")
@click.option("--executions/--no-executions", default=True, show_default=True, help="Submit runs of the samples.")
@click.option(
    "--large", type=click.IntRange(1, 1_000_000), help="Load so many made-up prompts instead, for benchmarks."
)
@click.option("--versions", type=click.IntRange(1, 100), default=10, show_default=True, help="Of each with --large.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def seed(
    workspace: str, project: str, prompts: int | None, executions: bool, large: int | None, versions: int, yes: bool
) -> None:
    """Fill a workspace with sample prompts, datasets and runs; or, with --large, with a great many prompts.

    The runs are of the simulated model, and a running fleet executes them. What is there already is left as it is:
    running it again changes nothing.
    """
    if large is None:
        what = f"{len(seeds.samples(prompts))} sample prompts, with their datasets" + (
            " and runs" if executions else ""
        )
    else:
        what = f"{large:,} prompts of {versions} versions each"
    if not yes:
        click.confirm(f"Add {what} to project {project} of workspace {workspace}?", abort=True)
    try:
        with transaction() as session:
            caller = tenants.at_command_line(session, workspace, "seed")
        made = (
            _seed_samples(caller, project, prompts, executions)
            if large is None
            else _seed_many(caller, project, large, versions)
        )
    except PromptmillError as error:
        raise click.ClickException(error.detail) from error
    said = ", ".join(f"{number:,} {noun}" for noun, number in made.items() if number)
    click.echo(f"made {said}" if said else "nothing to do: all of it is there already")


def _seed_samples(caller: Caller, project: str, count: int | None, executions: bool) -> Counter[str]:
    made: Counter[str] = Counter()
    chosen = seeds.samples(count)
    with click.progressbar(chosen, label="prompts") as bar:
        for sample in bar:
            made += seeds.plant(caller, sample, project=project)
    made += seeds.relate(caller, project=project)
    if executions:
        with click.progressbar(chosen, label="runs") as bar:
            for sample in bar:
                made += seeds.run(caller, sample, project=project)
    return made


def _seed_many(caller: Caller, project: str, count: int, versions: int) -> Counter[str]:
    made = 0
    with click.progressbar(length=count, label="prompts") as bar:
        for done, number in enumerate(seeds.plant_many(caller, project=project, count=count, versions=versions), 1):
            made += number
            bar.update(min(done * seeds.CHUNK, count) - bar.pos)
    search_index.fill()
    return Counter(prompts=made, versions=made * versions)


@main.command("compatibility")
def print_compatibility() -> None:
    """Print docs/reference/compatibility.md: where the endpoints of the earlier systems are."""
    # Here, for no other command needs the HTTP process.
    from app.compat import compatibility
    from app.factory import create_app

    click.echo(compatibility.page(create_app()), nl=False)


@main.group("queues")
def queues_group() -> None:
    """See and steer the queues of the fleet. What is done here stands in the events of the first workspace."""


@queues_group.command("list")
def list_queues() -> None:
    """Every queue, in the order in which workers serve them: one JSON object per line."""
    with reading() as session:
        for view in status.list_queues(session, None):
            click.echo(json.dumps(vars(view), default=str))


@queues_group.command("limit")
@click.argument("queue", type=click.Choice([name.value for name in Queue]))
@click.argument("max_running", type=click.IntRange(1, 1_000_000), required=False)
def limit_queue(queue: str, max_running: int | None) -> None:
    """Let at most MAX_RUNNING jobs of QUEUE run at once in the whole fleet; no number: no limit."""
    with transaction() as session:
        queues.limit(session, Queue(queue), max_running, workspace_id=tenants.fleet_workspace(session), actor=_person())
    click.echo(f"{queue}: no limit" if max_running is None else f"{queue}: at most {max_running} at once")


def _command(action: str, done: str) -> None:
    @queues_group.command(action, help=f"{action.capitalize()} QUEUE: {done}.")
    @click.argument("queue", type=click.Choice([name.value for name in Queue]))
    def act(queue: str) -> None:
        with transaction() as session:
            workspace_id = tenants.fleet_workspace(session)
            queues.act(session, Queue(queue), action, workspace_id=workspace_id, actor=_person())
        click.echo(f"{queue}: {done}")


_command("pause", "nothing is claimed from it until it is resumed")
_command("resume", "neither paused nor draining")
_command("drain", "takes nothing new until it is resumed")


def _fill_search(*, everything: bool) -> None:
    def tell(done: int, total: int) -> None:
        click.echo(f"search index: {done} of {total} prompts")

    if not search_index.fill(everything=everything, progress=tell):
        click.echo("search index: nothing to do")


def _person() -> str:
    """Who works at the command line, as the events name him."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        name = f"uid {os.getuid()}"
    return f"{name} (app.admin)"[:128]


if __name__ == "__main__":
    main()

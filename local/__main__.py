"""`python -m local up | demo`: what `make up` and `make demo` run."""

import re
import signal
import sys
import threading
from types import FrameType
from urllib.parse import urlsplit

import click

from local import stack
from local.demo import DemoError, play
from local.stack import Options, StackError


class _Stop(BaseException):
    """A signal asked for the end. Not an Exception: nothing on the way may swallow it."""


@click.group()
def main() -> None:
    """The whole of Promptmill on this machine: embedded servers, API, workers, beat and Flower."""


@main.command()
def up() -> None:
    """Start everything and stay up until Ctrl-C."""

    def stay(running: stack.Stack) -> None:
        _announce(running)
        waiting = threading.Event()
        while True:
            running.supervisor.watch()
            waiting.wait(0.2)

    _run(stay, quiet=False)


@main.command()
@click.option("--seed", type=int, envvar="SEED", default=0, show_default=True, help="Same seed, same result.")
def demo(seed: int) -> None:
    """Start everything, optimize one real prompt with live progress, and end everything."""
    _run(lambda running: play(running, seed=seed), quiet=True)


def _run(work: object, *, quiet: bool) -> None:
    assert callable(work)

    def stop(number: int, frame: FrameType | None) -> None:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)  # once is enough; the children are being ended
        raise _Stop

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop)
    try:
        with stack.running(Options.from_environment(), quiet=quiet) as running:
            work(running)
    except (StackError, DemoError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code if isinstance(error, StackError) else 1)
    except _Stop:
        click.echo("stopped", err=True)


def _announce(running: stack.Stack) -> None:
    facts = running.up
    flower = urlsplit(facts["flower_url"])
    database = re.sub(r"(://[^/:@]*:)[^/]*@", r"\1***@", facts["database_url"])
    click.echo(
        f"\nPromptmill is up.\n\n  API       {facts['url']}   (docs: {facts['url']}/docs)"
        f"\n  key       {facts['api_key']}"
        f"\n  Flower    http://{flower.hostname}:{flower.port}   (user {flower.username})"
        f"\n            its password is in {facts['home']}/flower_password"
        f"\n  database  {database}\n  facts     {facts['home']}/up.json\n\n  Ctrl-C ends everything.\n"
    )


if __name__ == "__main__":
    main()

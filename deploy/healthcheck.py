"""Whether a process does its work: `python deploy/healthcheck.py web|worker|beat|flower`, in its own container.

Exits 0, or 1 with the reason. Each role is asked where its work shows, so a process that hangs is red too;
and none depends on what it can do without: a worker is healthy while Redis is away.
"""

import os
import socket
import sys
import urllib.request

import redis
import sqlalchemy as sa

from shared import db
from shared.config import settings
from shared.models import WorkerProcess

TIMEOUT_SECONDS = 5.0


def web() -> str | None:
    """The API answers. Whether work gets done is what /ready says; restarting the API would not help that."""
    return _get(f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/health")


def flower() -> str | None:
    return _get(f"http://127.0.0.1:{os.environ.get('FLOWER_PORT', '5555')}/healthcheck")


def worker() -> str | None:
    """A worker on this host has checked in with the database lately."""
    alive_seconds = max(3 * (settings().heartbeat_seconds or 20.0), 15.0)
    seen = sa.exists().where(
        WorkerProcess.owner.startswith(f"{socket.gethostname()}:", autoescape=True),
        WorkerProcess.heartbeat_at >= db.db_now(-alive_seconds),
    )
    with db.reading() as session:
        if session.scalar(sa.select(seen)):
            return None
    return f"no worker of {socket.gethostname()} has checked in for {alive_seconds:g} s"


def beat() -> str | None:
    """Redis has heard from this host lately: beat sends a message every sweep and does nothing else."""
    silent_seconds = 3 * settings().sweep_seconds + 5
    client = redis.Redis.from_url(settings().redis_url.get_secret_value(), socket_timeout=TIMEOUT_SECONDS)
    me = client.client_info()
    idle = [
        int(other["idle"])
        for other in client.client_list()
        if _host(other["addr"]) == _host(me["addr"]) and other["id"] != str(me["id"])
    ]
    if not idle:
        return "this host has no connection to Redis"
    return f"nothing sent for {min(idle)} s" if min(idle) > silent_seconds else None


ROLES = {"web": web, "worker": worker, "beat": beat, "flower": flower}


def _get(url: str) -> str | None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - http:// and a local port
        return None if answer.status == 200 else f"{url} answered {answer.status}"


def _host(address: str) -> str:
    return address.rsplit(":", 1)[0]


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ROLES:
        sys.exit(f"usage: healthcheck.py {'|'.join(ROLES)}")
    sys.exit(ROLES[sys.argv[1]]())

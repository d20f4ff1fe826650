"""Answers that are remembered, in this process and in Redis, until what they were made of changes.

Every answer is as of less than a second ago: before one is given, this process asks the database what changed since
it last asked, at most ten times a second. Redis is not needed for that; it saves reading the database.
"""

import hashlib
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flask
from sqlalchemy.engine import Engine

from app.auth import caller
from shared import db, messages, metrics
from shared.cache import EVERYTHING, Entry, LocalCache, SharedCache
from shared.config import settings
from shared.domain import changes
from shared.domain.changes import Feed
from shared.domain.tenants import Caller

POLL_SECONDS = 0.1
STALE_SECONDS = 0.5
REDIS_SECONDS = 0.25  # to read the database takes a fraction of that
TOLD_SECONDS = 1.0
UNSHARED = 500  # answers that wait to be put into Redis; more are not
IF_NONE_MATCH: dict[str, Any] = {
    "in": "header",
    "name": "If-None-Match",
    "required": False,
    "schema": {"type": "string"},
    "description": "The ETag that you have; when it is still the current one, 304 and no body.",
}


@dataclass(frozen=True)
class Made:
    """An answer that was read from the database: its JSON, what it depends on, and the project whose readers see it."""

    payload: Any
    subjects: Sequence[str]
    project_id: uuid.UUID


class Registry:
    """The two layers of one process, and the feed that keeps them true."""

    def __init__(self) -> None:
        self.local = LocalCache(
            max_bytes=int(settings().cache_megabytes * 1_000_000), max_seconds=settings().cache_seconds
        )
        self.shared = SharedCache(
            messages.open_client(timeout_seconds=REDIS_SECONDS), max_seconds=settings().cache_seconds
        )
        self.version = 0  # raised by each poll that found something
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by workspace, since they were last told
        self._told_at = 0.0
        self._unshared: dict[str, Entry] = {}
        self._engine: Engine | None = None
        self._feed: Feed | None = None
        self._polled_at = 0.0
        self._known_commits = -1
        self._lock = threading.Lock()

    def refresh(self, *, now: bool = False) -> None:
        """Drop what is no longer true as of a moment ago: of now, if this process has changed something itself."""
        if now:
            with self._lock:
                self._poll()
        if self._is_fresh(POLL_SECONDS):
            return
        # While one thread asks, the others go on with what was known, but not for long.
        if self._lock.acquire(blocking=not self._is_fresh(STALE_SECONDS)):
            try:
                if not self._is_fresh(POLL_SECONDS):
                    self._poll()
            finally:
                self._lock.release()

    def _is_fresh(self, seconds: float) -> bool:
        return (
            time.monotonic() - self._polled_at < seconds
            and self._known_commits == changes.committed_here()
            and self._engine is db.engine()
        )

    def _poll(self) -> None:
        started, commits, engine = time.monotonic(), changes.committed_here(), db.engine()
        # The tokens first, then the look at what has changed: a change that this does not see deletes the tokens.
        waiting, self._unshared = self._unshared, {}
        tokens = self.shared.tokens({subject for entry in waiting.values() for subject in entry.subjects})
        changed = self._changed(engine)
        if changed:
            self.version += 1
            self.local.drop(changed)
            self.shared.drop(changed)
        else:
            self.shared.settle()
        self._engine, self._polled_at, self._known_commits = engine, started, commits
        if tokens:
            self.shared.put({key: entry for key, entry in waiting.items() if self.local.holds(key, entry)}, tokens)
        if started - self._told_at > TOLD_SECONDS:
            self._told_at = started
            self.tell_counts()

    def _changed(self, engine: Engine) -> set[str]:
        with db.reading() as session:
            if self._feed is None or self._engine is not engine:
                # What Redis holds may be from before, and nobody can say whether it was followed meanwhile.
                self._feed = changes.follow(session)
                return {EVERYTHING}
            found = changes.poll(session, self._feed)
        return {EVERYTHING} if found is None else found

    def find(self, key: str) -> tuple[Entry | None, str]:
        """The entry, and where it was: local, redis or nowhere."""
        entry = self.local.get(key)
        if entry is not None:
            return entry, "local"
        version = self.version
        entry = self.shared.get(key)
        if entry is None:
            return None, ""
        self._keep(key, entry, version)
        return entry, "redis"

    def keep(self, key: str, made: Made, *, version: int) -> Entry:
        """Remember an answer that was read after this version; not if something may have changed meanwhile."""
        body = flask.json.dumps(made.payload).encode() + b"\n"
        entry = Entry(body, hashlib.sha256(body).hexdigest()[:32], tuple(made.subjects), made.project_id.hex)
        if self._keep(key, entry, version) and len(self._unshared) < UNSHARED:
            self._unshared[key] = entry
        return entry

    def _keep(self, key: str, entry: Entry, version: int) -> bool:
        self.local.put(key, entry)
        if version == self.version:
            return True
        # A poll has found a change since the entry was read, and may have dropped its subjects before it was put.
        self.local.forget(key)
        return False

    def count(self, workspace_id: uuid.UUID, outcome: str, seconds: float) -> None:
        mine = self._counts[workspace_id.hex]
        mine[outcome] += 1
        mine["microseconds"] += int(seconds * 1e6)
        metrics.cache_asked(outcome)

    def tell_counts(self) -> None:
        """Add what was counted to the counters of all processes; without Redis it is kept until there is one."""
        if self.shared.is_usable:
            told, self._counts = self._counts, defaultdict(Counter)
            for workspace, counts in told.items():
                self.shared.add(workspace, dict(counts))  # a thread may count on in what it took before

    def counts(self, workspace_id: uuid.UUID) -> tuple[Counter[str], bool]:
        """Of all processes, or of this one since Redis went away; and whether Redis answers."""
        self.tell_counts()
        found = self.shared.counts(workspace_id.hex) if self.shared.is_usable else None
        return Counter(self._counts[workspace_id.hex]) + Counter(found or {}), found is not None


_registry: Registry | None = None


def registry() -> Registry:
    global _registry
    if _registry is None:
        _registry = Registry()
    return _registry


def key_of(reader: Caller, parts: Sequence[str | None]) -> str:
    return f"{reader.workspace_id.hex}:" + ":".join("" if part is None else part for part in parts)


def may_see(reader: Caller, entry: Entry) -> bool:
    return reader.project_ids is None or reader.may_see(uuid.UUID(entry.scope))


def headers_of(entry: Entry, where: str) -> list[tuple[str, str]]:
    return [
        ("ETag", f'"{entry.etag}"'),
        ("Cache-Control", "private, no-cache"),
        ("Cache-Status", f"promptmill; hit; detail={where}" if where else "promptmill; fwd=miss"),
    ]


def answer(key_parts: Sequence[str | None], make: Callable[[], Made]) -> flask.Response:
    """What is remembered under this key, or what `make` reads from the database, with its ETag.

    `Cache-Control: no-cache` asks the database in any case. The header Cache-Status (RFC 9211) says what happened.
    """
    started = time.perf_counter()
    reader, request, remembered = caller(), flask.request, registry()
    remembered.refresh()
    key = key_of(reader, key_parts)
    entry, where = None, ""
    if "no-cache" not in request.headers.get("Cache-Control", ""):
        entry, where = remembered.find(key)
    if entry is not None and not may_see(reader, entry):
        entry, where = None, ""  # the database says it in its own words
    if entry is None:
        version = remembered.version
        entry = remembered.keep(key, make(), version=version)
    remembered.count(reader.workspace_id, where or "miss", time.perf_counter() - started)
    response = flask.Response(entry.body, mimetype="application/json")
    response.headers.extend(headers_of(entry, where))
    if "If-None-Match" in request.headers:
        response.make_conditional(request)
    return response


def use_registry(other: Registry | None) -> None:
    """Another memory for this process, or a new one. For tests, which are many processes in one."""
    global _registry
    _registry = other

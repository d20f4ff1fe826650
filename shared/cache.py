"""Two layers of remembered answers: in this process, and in Redis behind it. It knows nothing of what is remembered.

Correct by construction, whatever Redis does: an entry of the first layer is served until `drop` names one of its
subjects; an entry of the second is served only while each of its subjects still has the token that it was stored
with. `drop` deletes the tokens. While tokens that should be deleted cannot be, the second layer is not read.
"""

import json
import secrets
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
import structlog

EVERYTHING = "all"  # a subject of every entry
_PREFIX = "promptmill:cache:"
_QUIET_SECONDS = 2.0  # a Redis that failed a moment ago is left alone
_OVERHEAD_BYTES = 600  # of an entry beside its body: keys, subjects, the objects that hold them
_UNSENT_TOKENS = 10_000

log = structlog.get_logger("cache")


@dataclass(frozen=True)
class Entry:
    """An answer. `subjects` are those whose change makes it untrue; `scope` is who may be shown it."""

    body: bytes
    etag: str
    subjects: tuple[str, ...]
    scope: str = ""


class LocalCache:
    """The first layer: least recently used entries up to a size. Safe for threads.

    What it holds are plain tuples of texts, and dicts of texts: Python's garbage collector looks at none of them. With
    objects and sets in their place each full collection stopped the process for the longer, the more was remembered.
    """

    def __init__(self, *, max_bytes: int, max_seconds: float) -> None:
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds
        self.bytes = 0
        self.evictions = 0
        self._entries: OrderedDict[str, tuple[bytes, str, tuple[str, ...], str, float]] = OrderedDict()
        self._keys_of: dict[str, dict[str, None]] = defaultdict(dict)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            body, etag, subjects, scope, kept_until = found
            if kept_until < time.monotonic():
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return Entry(body, etag, subjects, scope)

    def put(self, key: str, entry: Entry) -> None:
        with self._lock:
            if key in self._entries:
                self._remove(key)
            kept_until = time.monotonic() + self.max_seconds
            self._entries[key] = entry.body, entry.etag, tuple(entry.subjects), entry.scope, kept_until
            self.bytes += len(entry.body) + _OVERHEAD_BYTES
            for subject in entry.subjects:
                self._keys_of[subject][key] = None
            while self.bytes > self.max_bytes and len(self._entries) > 1:
                self._remove(next(iter(self._entries)))
                self.evictions += 1

    def drop(self, subjects: Iterable[str]) -> None:
        with self._lock:
            for subject in subjects:
                for key in list(self._entries) if subject == EVERYTHING else list(self._keys_of.get(subject, ())):
                    self._remove(key)

    def size_of(self, subject: str) -> tuple[int, int]:
        """How many entries have this subject, and their bytes."""
        with self._lock:
            keys = self._keys_of.get(subject, ())
            return len(keys), sum(len(self._entries[key][0]) + _OVERHEAD_BYTES for key in keys)

    def forget(self, key: str) -> None:
        with self._lock:
            if key in self._entries:
                self._remove(key)

    def holds(self, key: str, entry: Entry) -> bool:
        """Whether this very entry is still kept."""
        found = self._entries.get(key)
        return found is not None and found[0] is entry.body

    def _remove(self, key: str) -> None:
        body, _, subjects, _, _ = self._entries.pop(key)
        self.bytes -= len(body) + _OVERHEAD_BYTES
        for subject in subjects:
            keys = self._keys_of[subject]
            keys.pop(key, None)
            if not keys:
                del self._keys_of[subject]


class SharedCache:
    """The second layer, in Redis. No call raises: a Redis that does not answer remembers nothing."""

    def __init__(self, client: "redis.Redis", *, max_seconds: float) -> None:
        self._client = client
        self._seconds = max(1, int(max_seconds))
        self._undeleted: set[str] = set()
        self._quiet_until = 0.0

    @property
    def is_usable(self) -> bool:
        return time.monotonic() >= self._quiet_until and not self._undeleted

    def get(self, key: str) -> Entry | None:
        """The entry, if every subject still has its token."""
        if not self.is_usable:
            return None
        raw = self._ask(lambda client: client.get(_PREFIX + key))
        if not isinstance(raw, bytes):
            return None
        head, _, body = raw.partition(b"\n")
        stored = json.loads(head)
        tokens: Mapping[str, str] = stored["tokens"]
        found = self._ask(lambda client: client.mget([_token(subject) for subject in tokens]))
        if found is None or [token and token.decode() for token in found] != list(tokens.values()):
            return None
        return Entry(body, stored["etag"], tuple(stored["subjects"]), stored["scope"])

    def tokens(self, subjects: Collection[str]) -> dict[str, str]:
        """The token of each subject, made where there is none; nothing when Redis does not answer.

        Ask for them before you make sure that what is to be stored is still true: a change after that deletes them.
        """
        if not subjects or not self.is_usable:
            return {}
        names = sorted({*subjects, EVERYTHING})

        def ask(client: "redis.Redis") -> Any:
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.set(_token(name), secrets.token_hex(8), nx=True, ex=2 * self._seconds)
                pipe.get(_token(name))
            return pipe.execute()[1::2]

        found = self._ask(ask)
        if found is None or not all(found):
            return {}
        return {name: token.decode() for name, token in zip(names, found, strict=True)}

    def put(self, entries: Mapping[str, Entry], tokens: Mapping[str, str]) -> None:
        """Store entries with the tokens of their subjects."""

        def ask(client: "redis.Redis") -> Any:
            pipe = client.pipeline(transaction=False)
            for key, entry in entries.items():
                own = {subject: tokens[subject] for subject in (*entry.subjects, EVERYTHING)}
                head = {"etag": entry.etag, "scope": entry.scope, "subjects": entry.subjects, "tokens": own}
                pipe.set(_PREFIX + key, json.dumps(head).encode() + b"\n" + entry.body, ex=self._seconds)
            return pipe.execute()

        if self.is_usable:
            self._ask(ask)

    def drop(self, subjects: Collection[str]) -> None:
        """Make every entry of these subjects untrue, now or, if Redis is away, before it is read again."""
        self._undeleted.update(subjects)
        if len(self._undeleted) > _UNSENT_TOKENS:
            self._undeleted = {EVERYTHING}
        self.settle()

    def settle(self) -> None:
        """Delete what could not be deleted before."""
        wanted = tuple(self._undeleted)
        if wanted and time.monotonic() >= self._quiet_until:
            done = self._ask(lambda client: client.delete(*map(_token, wanted)))
            if done is not None:
                self._undeleted.difference_update(wanted)

    def add(self, name: str, counts: Mapping[str, int]) -> None:
        """Add to counters that all processes share."""

        def ask(client: "redis.Redis") -> Any:
            pipe = client.pipeline(transaction=False)
            for counter, count in counts.items():
                pipe.hincrby(f"{_PREFIX}counts:{name}", counter, count)
            return pipe.execute()

        self._ask(ask)

    def counts(self, name: str) -> dict[str, int] | None:
        """Those counters; None when Redis does not answer."""
        found = self._ask(lambda client: client.hgetall(f"{_PREFIX}counts:{name}"))
        return None if found is None else {key.decode(): int(value) for key, value in found.items()}

    def _ask(self, ask: Callable[["redis.Redis"], Any]) -> Any:
        try:
            return ask(self._client)
        except (redis.RedisError, OSError) as error:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            log.warning("cache_unshared", error=str(error))
            return None


def _token(subject: str) -> str:
    return f"{_PREFIX}token:{subject}"

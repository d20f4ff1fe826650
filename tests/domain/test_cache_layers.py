"""The two layers of the cache by themselves: what they keep, what they let go, and a Redis that comes and goes."""

import pytest
import redis

from shared import messages
from shared.cache import EVERYTHING, Entry, LocalCache, SharedCache
from tests.servers import RedisServer, free_port


def entry(subject: str = "a", body: bytes = b"{}") -> Entry:
    return Entry(body, "etag", (subject, "workspace"), "project")


def local(**limits: float) -> LocalCache:
    return LocalCache(**{"max_bytes": 1_000_000, "max_seconds": 60, **limits})  # type: ignore[arg-type]


@pytest.fixture
def shared(broker: RedisServer) -> SharedCache:
    return SharedCache(messages.open_client(timeout_seconds=1), max_seconds=60)


def put(shared: SharedCache, key: str, one: Entry) -> None:
    shared.put({key: one}, shared.tokens(one.subjects))


def test_the_least_recently_read_goes_first_when_it_grows_too_large() -> None:
    cache = local(max_bytes=3 * 1_600)
    for key in "abc":
        cache.put(key, entry(key, b"x" * 1_000))
    cache.get("a")

    cache.put("d", entry("d", b"x" * 1_000))

    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]
    assert (len(cache), cache.evictions, cache.bytes) == (3, 1, 3 * 1_600)


def test_what_is_put_again_takes_the_room_of_one() -> None:
    cache = local()
    for body in (b"x", b"xyz", b"xy"):
        cache.put("a", entry(body=body))

    assert (len(cache), cache.size_of("a"), cache.size_of("workspace")) == (1, (1, 602), (1, 602))


@pytest.mark.parametrize(("dropped", "left"), [("a", ["b"]), ("workspace", []), (EVERYTHING, []), ("x", ["a", "b"])])
def test_dropping_a_subject_drops_what_was_made_of_it(dropped: str, left: list[str]) -> None:
    cache = local()
    for key in "ab":
        cache.put(key, entry(key))

    cache.drop([dropped])

    assert [key for key in "ab" if cache.get(key)] == left
    assert cache.bytes == len(left) * 602


def test_an_entry_is_kept_no_longer_than_it_may_be() -> None:
    cache = local(max_seconds=-1)
    cache.put("a", entry())

    assert (cache.get("a"), len(cache), cache.bytes) == (None, 0, 0)


def test_redis_gives_back_what_was_put(shared: SharedCache) -> None:
    put(shared, "key", entry(body='{"text": "ä\nb"}'.encode()))

    assert shared.get("key") == entry(body='{"text": "ä\nb"}'.encode())
    assert shared.get("other") is None


@pytest.mark.parametrize("dropped", ["a", "workspace", EVERYTHING])
def test_redis_gives_back_nothing_whose_subject_was_dropped(shared: SharedCache, dropped: str) -> None:
    put(shared, "key", entry())

    shared.drop([dropped])

    assert shared.get("key") is None
    put(shared, "key", entry())
    assert shared.get("key") == entry()


def test_what_is_put_with_the_tokens_of_before_a_change_is_not_given_back(shared: SharedCache) -> None:
    tokens = shared.tokens(entry().subjects)
    shared.drop(["a"])
    shared.tokens(["a"])  # somebody else needs one meanwhile

    shared.put({"key": entry()}, tokens)

    assert shared.get("key") is None


def test_a_redis_that_forgets_its_tokens_gives_back_nothing(shared: SharedCache) -> None:
    put(shared, "key", entry())

    for name in messages.client().scan_iter("*token*"):
        messages.client().delete(name)

    assert shared.get("key") is None


def test_what_could_not_be_dropped_is_not_read_until_it_is(shared: SharedCache) -> None:
    """Redis is out of reach when something changes, and holds the old answer when it is back."""
    put(shared, "key", entry())
    reachable = shared._client
    shared._client = redis.Redis(port=free_port(), socket_connect_timeout=0.2)
    shared.drop(["a"])
    away = shared.is_usable

    shared._client, shared._quiet_until = reachable, 0.0
    before = (shared.is_usable, shared.get("key"))
    shared.settle()

    assert (away, before) == (False, (False, None))
    assert (shared.is_usable, shared.get("key")) == (True, None)


def test_too_much_that_could_not_be_dropped_is_all_of_it(shared: SharedCache) -> None:
    put(shared, "key", entry("z"))
    reachable = shared._client
    shared._client = redis.Redis(port=free_port(), socket_connect_timeout=0.2)
    shared.drop([str(number) for number in range(10_001)])

    shared._client, shared._quiet_until = reachable, 0.0
    shared.settle()

    assert (shared.is_usable, shared.get("key")) == (True, None)


def test_counters_add_up_over_processes(shared: SharedCache, broker: RedisServer) -> None:
    other = SharedCache(messages.open_client(timeout_seconds=1), max_seconds=60)

    shared.add("workspace", {"local": 2, "miss": 1})
    other.add("workspace", {"local": 3})

    assert shared.counts("workspace") == {"local": 5, "miss": 1}

"""Load on a server: as much as it takes (wrk, or a client of our own), so much a second, or one after the other.

Each function is one measurement in a process of its own (`benchmarks.work`), and says what CPU time the load took
itself: it shares the machine with the server. A request that is not answered with 2xx fails the measurement.
"""

import asyncio
import json
import os
import re
import resource
import selectors
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, TypedDict

import psutil

CONNECTIONS = 64  # of the load at a rate; a request that finds none free waits, and its wait counts
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Request(TypedDict):
    """In path and body, @name@ becomes the next of the names and @number@ a number that is used once.

    Of requests that take turns, those of one turn have the same name and number; all are sent with the headers of all.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: str | None


class Names(TypedDict):
    """A file of names, one for each request, and where to begin in it; and with which number."""

    file: str
    at: int
    number: int


# What a measurement found: count, seconds, p50_ms, p95_ms, p99_ms, cpu_seconds (the server's, with its children) and
# load_cpu_seconds (of the load itself).
Loaded = dict[str, float]


def saturate(
    *,
    server: int,
    port: int,
    requests: Sequence[Request],
    names: Names,
    connections: int,
    seconds: float,
    generator: str,
) -> Loaded:
    """Each connection sends the next request when its last is answered. The latencies are those of a full server."""
    if generator == "wrk":
        with _Cpu(server, of_children=True) as cpu:
            found = _wrk(port, requests, names, connections, seconds)
        return {**found, **cpu.used()}
    load = _Load(port, requests, names, connections)
    with _Cpu(server) as cpu:
        took, latencies, _ = _run(load.in_turns(seconds=seconds))
    return {"count": len(latencies), "seconds": took, **_percentiles(latencies), **cpu.used()}


def at_rate(
    *, server: int, port: int, request: Request, names: Names, per_s: float, seconds: float, warm_seconds: float
) -> Loaded:
    """So many requests a second, whatever the answers do: latency counts from when a request was due.

    The first seconds warm up and are not counted. `late_p99_ms` is how late requests were sent, by a load that was
    behind or for want of a free connection; it is part of the latencies.
    """
    load = _Load(port, [request], names, CONNECTIONS)
    warm = _Load(port, [request], {**names, "at": names["at"] + int(per_s * seconds)}, CONNECTIONS)
    _run(warm.at_rate(per_s=per_s, seconds=warm_seconds))
    with _Cpu(server) as cpu:
        took, latencies, late = _run(load.at_rate(per_s=per_s, seconds=seconds))
    return {
        "count": len(latencies),
        "seconds": took,
        "per_s": per_s,
        **_percentiles(latencies),
        "late_p99_ms": _percentiles(late)["p99_ms"],
        **cpu.used(),
    }


def in_turn(
    *, server: int, port: int, request: Request, names: Names, clients: int, at_most: int, seconds: float
) -> Loaded:
    """A few clients, each with one request after the other: `at_most` so many, for at most so long."""
    load = _Load(port, [request], names, clients)
    with _Cpu(server) as cpu:
        took, latencies, _ = _run(load.in_turns(seconds=seconds, at_most=at_most))
    return {"count": len(latencies), "seconds": took, **_percentiles(latencies), **cpu.used()}


# ---- wrk ------------------------------------------------------------------------------------


def _wrk(port: int, requests: Sequence[Request], names: Names, connections: int, seconds: float) -> Loaded:
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", "30s"]
    headers = [part for name, value in _headers(requests).items() for part in ("-H", f"{name}: {value}")]
    given = {
        "LOAD_REQUESTS": str(len(requests)),
        "LOAD_NAMES": names["file"],
        "LOAD_AT": str(names["at"]),
        "LOAD_NUMBER": str(names["number"]),
    }
    for place, request in enumerate(requests, start=1):
        given |= {f"LOAD_METHOD_{place}": request["method"], f"LOAD_PATH_{place}": request["path"]}
        if request["body"] is not None:
            given[f"LOAD_BODY_{place}"] = request["body"]
    script = str(Path(__file__).with_suffix(".lua"))
    done = subprocess.run(
        [*command, *headers, "-s", script, f"http://127.0.0.1:{port}"],
        env={**os.environ, **given},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: Loaded = json.loads(done.stdout.decode().strip().splitlines()[-1])
    bad = {what: found.pop(what) for what in ("refused", "broken")}
    if any(bad.values()) or not found["count"]:
        raise AssertionError(f"of {found['count']} requests {bad['refused']} were refused, {bad['broken']} broke")
    return found


# ---- our own client -------------------------------------------------------------------------


class _Connection(asyncio.Protocol):
    """One request at a time; tells when its answer is complete."""

    def __init__(self, answered: "Callable[[_Connection], None]") -> None:
        self._answered, self._read = answered, b""
        self.due = 0.0
        self.broken: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, due: float, request: bytes) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        if head < 0 or not self._is_complete(head):
            return
        if self._read[9:10] != b"2":
            self.broken = self._read[:2_000].decode(errors="replace")
        self._read = b""
        self._answered(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.broken = f"the server closed a connection: {error}"
        self._answered(self)

    def _is_complete(self, head: int) -> bool:
        length = _LENGTH.search(self._read, 0, head + 2)
        if length:
            return len(self._read) >= head + 4 + int(length[1])
        if _CHUNKED.search(self._read, 0, head + 2):
            return self._read.endswith(b"0\r\n\r\n")
        raise AssertionError(f"an answer of unknown length: {self._read[:500]!r}")


@dataclass
class _Load:
    port: int
    requests: Sequence[Request]
    names: Names
    connections: int
    latencies: list[float] = field(default_factory=list)  # milliseconds
    late: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = Path(self.names["file"]).read_text().splitlines()

    async def in_turns(self, *, seconds: float, at_most: int | None = None) -> tuple[float, list[float], list[float]]:
        requests = islice(self._made(), at_most)
        idle = asyncio.get_running_loop().create_future()
        busy: set[_Connection] = set()
        started = time.monotonic()

        def turn(connection: _Connection) -> None:
            busy.discard(connection)
            now = time.monotonic()
            self._note(connection, now)
            following = next(requests, None) if now < started + seconds and not connection.broken else None
            if following is not None:
                busy.add(connection)
                connection.send(now, following)
            elif connection.broken and not idle.done():
                idle.set_exception(AssertionError(connection.broken))
            elif not busy and not idle.done():
                idle.set_result(None)

        opened = await self._open(turn)
        started = time.monotonic()
        for connection, first in zip(opened, requests, strict=False):
            busy.add(connection)
            connection.send(time.monotonic(), first)
        try:
            await idle
        finally:
            _close(opened)
        return time.monotonic() - started, self.latencies, self.late

    async def at_rate(self, *, per_s: float, seconds: float) -> tuple[float, list[float], list[float]]:
        wanted = int(per_s * seconds)
        requests = list(islice(self._made(), wanted))
        waiting: deque[tuple[float, bytes]] = deque()
        free: deque[_Connection] = deque()
        all_answered = asyncio.get_running_loop().create_future()

        def answered(connection: _Connection) -> None:
            self._note(connection, time.monotonic())
            if connection.broken and not all_answered.done():
                all_answered.set_exception(AssertionError(connection.broken))
            elif len(self.latencies) == wanted and not all_answered.done():
                all_answered.set_result(None)
            elif waiting:
                self._send(connection, *waiting.popleft())
            else:
                free.append(connection)

        opened = await self._open(answered)
        free.extend(opened)
        started = time.monotonic()
        for number, request in enumerate(requests):
            due = started + number / per_s
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            if all_answered.done():
                break
            if free:
                self._send(free.popleft(), due, request)
            else:
                waiting.append((due, request))
        try:
            if wanted:
                await all_answered
        finally:
            _close(opened)
        return time.monotonic() - started, self.latencies, self.late

    async def _open(self, answered: Callable[[_Connection], None]) -> list[_Connection]:
        loop = asyncio.get_running_loop()
        return [
            (await loop.create_connection(lambda: _Connection(answered), "127.0.0.1", self.port))[1]
            for _ in range(self.connections)
        ]

    def _send(self, connection: _Connection, due: float, request: bytes) -> None:
        self.late.append(1000 * (time.monotonic() - due))
        connection.send(due, request)

    def _note(self, connection: _Connection, now: float) -> None:
        if not connection.broken:
            self.latencies.append(1000 * (now - connection.due))

    def _made(self) -> Iterator[bytes]:
        names, lines = self.names, self._lines
        headers = "".join(f"{name}: {value}\r\n" for name, value in _headers(self.requests).items())
        for step, request in ((step, request) for step in count(1) for request in self.requests):
            values = {"@name@": lines[(names["at"] + step) % len(lines)], "@number@": str(names["number"] + step)}
            path, body = request["path"], request["body"]
            for mark, value in values.items():
                path, body = path.replace(mark, value), body and body.replace(mark, value)
            content = (body or "").encode()
            length = f"Content-Length: {len(content)}\r\n" if body is not None else ""
            yield f"{request['method']} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}{length}\r\n".encode() + content


def _headers(requests: Sequence[Request]) -> dict[str, str]:
    return {name: value for request in requests for name, value in request["headers"].items()}


def _close(connections: Sequence[_Connection]) -> None:
    for connection in connections:
        connection.transport.abort()


def _run(load: Any) -> tuple[float, list[float], list[float]]:
    # select() waits to the microsecond, epoll to the millisecond, in which requests would gather.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        found: tuple[float, list[float], list[float]] = runner.run(load)
    return found


def _percentiles(latencies: Sequence[float]) -> Loaded:
    cuts = statistics.quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else [*latencies] * 99
    return {f"p{share}_ms": cuts[share - 1] for share in (50, 95, 99)}


class _Cpu:
    """CPU time of a server with its children, and of the load: of this process, or of the child that it waits for."""

    def __init__(self, server: int, *, of_children: bool = False) -> None:
        self._server = psutil.Process(server)
        self._who = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF

    def __enter__(self) -> "_Cpu":
        self._started = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = self._read()

    def used(self) -> Loaded:
        server, load = (now - then for now, then in zip(self._ended, self._started, strict=True))
        return {"cpu_seconds": server, "load_cpu_seconds": load}

    def _read(self) -> tuple[float, float]:
        processes = [self._server, *self._server.children(recursive=True)]
        own = resource.getrusage(self._who)
        return sum(sum(each.cpu_times()[:2]) for each in processes), own.ru_utime + own.ru_stime

"""A chat completion endpoint that answers at once or after a while, and how many answers a second it can give.

    python -m benchmarks.stub PORT [LATENCY_MS]

No framework: what is measured is whoever calls it. It reads requests by `Content-Length`, keeps connections
open, and always gives the same answer. `GET /tally` says what was asked since it was last read.
"""

import asyncio
import json
import re
import sys
import time
import urllib.request
from typing import TypedDict

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ANSWER = '{"category": "billing", "urgency": "high"}'
_BODY = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": ANSWER},
            }
        ],
        "usage": {"prompt_tokens": 61, "completion_tokens": 12, "total_tokens": 73},
    }
).encode()


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_benchmark\r\n"
    return head + f"content-length: {len(body)}\r\n\r\n".encode() + body


_ANSWER = _answer(_BODY)


class Tally(TypedDict):
    """Calls answered, the most that were in flight at once, and seconds from the first request to the last answer."""

    calls: int
    most_in_flight: int
    seconds: float


class Counting:
    def __init__(self) -> None:
        self._in_flight = self._most = self._calls = 0
        self._first = self._last = 0.0

    def began(self) -> None:
        self._first = self._first or time.monotonic()
        self._in_flight += 1
        self._most = max(self._most, self._in_flight)

    def ended(self) -> None:
        self._in_flight -= 1
        self._calls += 1
        self._last = time.monotonic()

    def read(self) -> Tally:
        """And begin anew."""
        told: Tally = {
            "calls": self._calls,
            "most_in_flight": self._most,
            "seconds": max(0.0, self._last - self._first),
        }
        self._calls, self._most, self._first = 0, self._in_flight, 0.0
        return told


class Connection(asyncio.Protocol):
    def __init__(self, counting: Counting, latency_seconds: float = 0.0) -> None:
        self._read = b""
        self._counting, self._latency_seconds = counting, latency_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (head := self._read.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._read, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._read) < end:
                return
            is_tally = self._read.startswith(b"GET /tally ")
            self._read = self._read[end:]
            if is_tally:
                self._transport.write(_answer(json.dumps(self._counting.read()).encode()))
                continue
            self._counting.began()
            if self._latency_seconds:
                asyncio.get_running_loop().call_later(self._latency_seconds, self._reply)
            else:
                self._reply()

    def _reply(self) -> None:
        self._counting.ended()
        self._transport.write(_ANSWER)


class _Caller(asyncio.Protocol):
    """Sends the next request when the answer to the last is complete."""

    def __init__(self, request: bytes, until: float, ended: "asyncio.Future[int]") -> None:
        self._request, self._until, self._ended = request, until, ended
        self._missing, self._answers = len(_ANSWER), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing:
            return
        self._missing = len(_ANSWER)
        self._answers += 1
        if time.monotonic() < self._until:
            self._transport.write(self._request)
        elif not self._ended.done():
            self._ended.set_result(self._answers)
            self._transport.close()


def ceiling(port: int, *, concurrency: int, seconds: float) -> dict[str, float]:
    """Answers per second to a client that does nothing but count them: the least that the stub can do."""

    async def ask() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        endings = [loop.create_future() for _ in range(concurrency)]
        for ended in endings:
            caller = _Caller(_request(), started + seconds, ended)
            await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)  # type: ignore[misc]
        return sum(await asyncio.gather(*endings)), time.monotonic() - started

    answers, took = asyncio.run(ask())
    return {"count": answers, "seconds": took}


def _request() -> bytes:
    """As long as what the SDK sends."""
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x" * 400}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: stub\r\nx-padding: {'x' * 600}\r\n"
    return head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body


def tally(port: int) -> Tally:
    """What was asked since the last reading."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/tally", timeout=10) as answer:
        told: Tally = json.load(answer)
    return told


async def _serve(port: int, latency_ms: float = 0.0) -> None:
    counting = Counting()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(counting, latency_ms / 1000), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), *map(float, sys.argv[2:])))

"""A chat completion endpoint that answers at once, and how many answers a second it can give.

    python -m benchmarks.stub PORT

No framework: what is measured is whoever calls it. It reads requests by `Content-Length`, keeps connections
open, and always gives the same answer.
"""

import asyncio
import json
import re
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
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
                "message": {"role": "assistant", "content": '{"category": "billing", "urgency": "high"}'},
            }
        ],
        "usage": {"prompt_tokens": 61, "completion_tokens": 12, "total_tokens": 73},
    }
).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_benchmark\r\n"
    + f"content-length: {len(_BODY)}\r\n\r\n".encode()
    + _BODY
)


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._read = b""

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
            self._read = self._read[end:]
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


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))

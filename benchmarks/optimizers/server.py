"""A world behind an OpenAI-compatible address, and beside it, on another, what is known about it.

    python -m benchmarks.optimizers.server PORT CONTROL_PORT

The first address takes chat completions; the model's name says which role is asked, `world-task` or
`world-proposer`. The second is for the benchmark alone: it begins a run, tells its record, and scores prompts.
"""

import asyncio
import json
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.optimizers import worlds
from benchmarks.optimizers.record import PROPOSER, TASK, Run

MODELS = {"world-task": TASK, "world-proposer": PROPOSER}
Answer = Callable[[str, str, dict[str, str], bytes], Awaitable[tuple[int, Any]]]


class Server:
    """One run at a time."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.latency_seconds = 0.0

    async def completions(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        if method != "POST" or not path.endswith("/chat/completions"):
            return 404, _error("there are chat completions only")
        asked = json.loads(body)
        role = MODELS.get(str(asked.get("model")))
        if role is None or self.run is None:
            return 404, _error(f"there is no model {asked.get('model')!r}")
        temperature = asked.get("temperature")
        sample = headers.get("x-promptmill-sample")
        try:
            text = self.run.call(
                role,
                asked["messages"],
                temperature=1.0 if temperature is None else float(temperature),
                sample=None if sample is None else int(sample),
            )
        except KeyError as error:
            return 400, _error(str(error))
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        sent = sum(len(str(message["content"])) for message in asked["messages"]) // 4
        return 200, {
            "id": f"chatcmpl-{len(self.run.calls)}",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": sent, "completion_tokens": len(text) // 4 + 1,
                      "total_tokens": sent + len(text) // 4 + 1},
        }  # fmt: skip

    async def control(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        asked = json.loads(body or b"{}")
        if (method, path) == ("POST", "/runs"):
            world = worlds.world(asked["seed"], asked["family"], asked["number"])
            self.run, self.latency_seconds = Run(world, asked["level"]), asked.get("latency_ms", 0) / 1000
            return 200, {"world": world.name}
        if self.run is None:
            return 404, _error("no run has begun")
        if (method, path) == ("GET", "/run"):
            return 200, self.run.told()
        if (method, path) == ("GET", "/calls"):
            return 200, {"calls": len(self.run.calls)}
        if (method, path) == ("POST", "/scores"):
            return 200, {"true": self.run.world.true_score(asked["text"])}
        return 404, _error("unknown")


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    """Of the second address."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def _error(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "invalid_request_error", "code": None}}


async def _serve(port: int, control_port: int) -> None:
    server = Server()
    for at, answer in ((port, server.completions), (control_port, server.control)):
        await asyncio.start_server(_connection(answer), "127.0.0.1", at, backlog=512)
    await asyncio.Event().wait()


def _connection(answer: Answer) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """HTTP/1.1 with connections that stay open: enough for the clients that come here."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {
                    name.strip().lower(): value.strip() for name, _, value in (h.partition(":") for h in head[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, answered = await answer(method, path, headers, body)
                data = json.dumps(answered).encode()
                answer_head = (
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
                )
                writer.write(answer_head.encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return serve


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))

"""The simulated model as an OpenAI-compatible HTTP server, so that tests drive the real SDK.

    gunicorn --threads 64 worker.simulator.server:application

`POST /v1/chat/completions` and `/v1/embeddings` answer; `GET /calls` says how often each call was made (by the sha256
of its request and sample), and `GET /log` lists them one by one, from the moment each began;
`PUT /faults` with `{"rate_limited": 0.2}` makes it misbehave, `{}` stops it and ends every hang; with
`"first_attempts": 2` only the first two attempts of a job are hit. `PUT /latency` with `{"ms": 500}` sets
the wait. One process only: the counts live in memory.
"""

import json
import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from shared.hashing import hash_of
from worker import simulator
from worker.simulator import faults
from worker.simulator.faults import RETRY_AFTER_SECONDS

Answer = tuple[int, dict[str, str], Any]  # status, headers, body (bytes as they are, else JSON)
Reply = tuple[dict[str, Any], float]  # what a well-behaved server answers, after so many seconds
Handler = Callable[[WSGIEnvironment, Any], Answer]

_PARAMS: Sequence[str] = ("temperature", "max_tokens", "max_completion_tokens", "seed", "stop")
_lock = threading.Lock()
_calls: "Counter[str]" = Counter()
_log: list[dict[str, Any]] = []
_shares: dict[str, float] = {}
_first_attempts = math.inf  # that are hit by faults
_hangs_end = threading.Event()  # set, and replaced, when other faults are asked for
_latency_ms: float | None = None


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    route = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
    try:
        body = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"{}")
        handler = _ROUTES.get(route)
        if handler is None:
            answer: Answer = (404, {}, _error("unknown route", "not_found"))
        else:
            answer = handler(environ, body)
    except (ValueError, KeyError, TypeError) as error:
        answer = (400, {}, _error(f"{type(error).__name__}: {error}", "bad_request"))
    status, headers, payload = answer
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    length = headers.pop("Content-Length", str(len(content)))
    start_response(
        f"{status} .",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", length),
            *{"x-request-id": _new_request_id(), **headers}.items(),
        ],
    )
    return _broken_off(content) if length != str(len(content)) else [content]


def _broken_off(content: bytes) -> Iterator[bytes]:
    """Less than was announced, then an error: the server can only close the connection."""
    yield content
    raise ConnectionAbortedError("truncated on request")


def _complete(environ: WSGIEnvironment, body: dict[str, Any]) -> Answer:
    params = {name: body[name] for name in _PARAMS if name in body}
    messages = [{"role": message["role"], "content": message["content"]} for message in body["messages"]]
    beside = [body[name] for name in ("tools", "response_format") if name in body]  # read by nobody here
    return _noted(environ, _call(environ, body["model"], messages, params), beside, _chat)


def _embed(environ: WSGIEnvironment, body: dict[str, Any]) -> Answer:
    messages = [{"role": "input", "content": text} for text in body["input"]]
    return _noted(environ, _call(environ, body["model"], messages, {}), [], _vector)


def _call(
    environ: WSGIEnvironment, model: str, messages: Sequence[Mapping[str, str]], params: Mapping[str, Any]
) -> simulator.SimulatedCall:
    return simulator.SimulatedCall(
        model,
        messages,
        params,
        int(environ.get("HTTP_X_PROMPTMILL_SAMPLE", 0)),
        int(environ.get("HTTP_X_PROMPTMILL_ATTEMPT", 0)),
    )


def _noted(
    environ: WSGIEnvironment, call: simulator.SimulatedCall, beside: Sequence[Any], reply: Callable[..., Reply]
) -> Answer:
    """Write the call down, then answer it, or do wrong as asked."""
    key = hash_of([call.model_name, call.params, list(call.messages), call.sample, *beside])
    request_id = _new_request_id()
    with _lock:
        _calls[key] += 1
        fault = faults.choose(call, _shares) if call.attempt < _first_attempts else None
        hang_ends = _hangs_end
        _log.append(
            {
                "key": key,
                "execution_id": environ.get("HTTP_X_CLIENT_REQUEST_ID"),
                "request_id": request_id,
                "started_at": time.time(),
                "fault": fault,
            }
        )
    payload, seconds = reply(call)
    time.sleep(seconds if _latency_ms is None else _latency_ms / 1000)
    status, headers, payload = _answer(payload, fault, hang_ends)
    return status, {"x-request-id": request_id, **headers}, payload


def _answer(payload: dict[str, Any], fault: str | None, hang_ends: threading.Event) -> Answer:
    if fault == "rate_limited":
        return 429, {"Retry-After": str(RETRY_AFTER_SECONDS)}, _error("slow down", "rate_limit_exceeded")
    if fault == "server_error":
        return 500, {}, _error("simulated failure", "server_error")
    if fault == "bad_request":
        return 400, {}, _error("simulated refusal", "bad_request")
    if fault == "malformed":
        return 200, {}, b'{"choices": [{"message": '
    if fault == "truncated":
        whole = json.dumps(payload).encode()
        return 200, {"Content-Length": str(len(whole))}, whole[: len(whole) // 2]
    if fault == "timeout":
        hang_ends.wait(3600)
    return 200, {}, payload


def _chat(call: simulator.SimulatedCall) -> Reply:
    reply = simulator.reply_to(call)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex[:16]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": call.model_name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text},
                "finish_reason": reply.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.response_tokens,
            "total_tokens": reply.prompt_tokens + reply.response_tokens,
        },
    }, reply.latency_seconds


def _vector(call: simulator.SimulatedCall) -> Reply:
    reply = simulator.embedding_of(call)
    return {
        "object": "list",
        "model": call.model_name,
        "data": [{"object": "embedding", "index": 0, **json.loads(reply.text)}],
        "usage": {"prompt_tokens": reply.prompt_tokens, "total_tokens": reply.prompt_tokens},
    }, reply.latency_seconds


def _count(environ: WSGIEnvironment, body: Any) -> Answer:
    with _lock:
        return 200, {}, {"total": sum(_calls.values()), "calls": dict(_calls)}


def _list(environ: WSGIEnvironment, body: Any) -> Answer:
    with _lock:
        return 200, {}, list(_log)


def _set_faults(environ: WSGIEnvironment, body: dict[str, float]) -> Answer:
    global _first_attempts, _hangs_end
    first_attempts = float(body.pop("first_attempts", math.inf))
    shares = faults.parse(",".join(f"{name}:{share}" for name, share in body.items()))
    with _lock:
        _shares.clear()
        _shares.update(shares)
        _first_attempts = first_attempts
        _hangs_end.set()
        _hangs_end = threading.Event()
    return 200, {}, shares


def _set_latency(environ: WSGIEnvironment, body: dict[str, float]) -> Answer:
    global _latency_ms
    _latency_ms = float(body["ms"])
    return 200, {}, body


def _new_request_id() -> str:
    return f"req_{uuid.uuid4().hex[:16]}"


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


_ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/chat/completions"): _complete,
    ("POST", "/v1/embeddings"): _embed,
    ("GET", "/calls"): _count,
    ("GET", "/log"): _list,
    ("PUT", "/faults"): _set_faults,
    ("PUT", "/latency"): _set_latency,
}

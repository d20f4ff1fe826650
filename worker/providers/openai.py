"""Chat completions of OpenAI, or of any server that speaks its protocol (`OPENAI_BASE_URL`).

The SDK's own retries are off: the job decides about attempts, so three tries never become twelve.
"""

import contextlib
import email.utils
import math
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai

from shared.config import settings
from shared.errors import ProviderError
from shared.hashing import dump_json
from worker.providers import Answer, Request

_RETRYABLE_STATUS = (408, 409, 425, 429)
_COMPLETION_LIMIT_MODELS = ("o1", "o3", "o4", "gpt-5")  # these refuse max_tokens


class OpenAIProvider:
    def __init__(self, client: openai.OpenAI | None) -> None:
        self._client = client

    def generate(self, request: Request) -> Answer:
        client = self._connected()
        started = time.monotonic()
        body = {
            "model": request.model_name,
            "messages": [dict(message) for message in request.messages],
            **_as_openai(request.model_name, request.params),
            **_beside(request),
        }
        with _classified():
            return _read(_post(client, "/chat/completions", request, body), started, _choice)

    def embed(self, request: Request) -> Answer:
        client = self._connected()
        started = time.monotonic()
        body = {
            "model": request.model_name,
            "input": [message["content"] for message in request.messages],
            "encoding_format": "float",
        }
        with _classified():
            return _read(_post(client, "/embeddings", request, body), started, _embedding)

    def _connected(self) -> openai.OpenAI:
        if self._client is None:
            raise ProviderError(
                "no_credentials", "set OPENAI_API_KEY or OPENAI_BASE_URL for the workers", retryable=False
            )
        return self._client


def connect() -> OpenAIProvider:
    key = settings().openai_api_key
    base_url = settings().openai_base_url
    if key is None and base_url is None:
        return OpenAIProvider(None)
    # A server of one's own often wants no key; the SDK insists on some text.
    secret = key.get_secret_value() if key else "none"
    return OpenAIProvider(openai.OpenAI(api_key=secret, base_url=base_url, max_retries=0))


@contextlib.contextmanager
def _classified() -> Iterator[None]:
    """The SDK's errors as ours."""
    try:
        yield
    except openai.APIStatusError as error:
        raise _from_status(error) from error
    except openai.APITimeoutError as error:
        sent = not isinstance(error.__cause__, httpx2.ConnectTimeout | httpx2.PoolTimeout)
        raise ProviderError("timeout", "no answer in time", retryable=True, possibly_paid=sent) from error
    except openai.APIConnectionError as error:
        sent = not isinstance(error.__cause__, httpx2.ConnectError)
        raise ProviderError(
            "connection_error", str(error.__cause__ or error), retryable=True, possibly_paid=sent
        ) from error


def _post(client: openai.OpenAI, path: str, request: Request, body: Mapping[str, Any]) -> httpx2.Response:
    """By the SDK's `post`, and not by its method for the address: that one goes through the typed request first, which
    takes as long as all else that it does (measured), and what we send has been checked already."""
    return client.post(
        path,
        cast_to=httpx2.Response,
        body=body,
        options={
            "timeout": httpx2.Timeout(request.timeout_seconds, connect=5.0, write=30.0, pool=5.0),
            "headers": {
                "X-Client-Request-Id": request.execution_id,
                "X-Promptmill-Sample": str(request.sample),
                "X-Promptmill-Attempt": str(request.attempt),
            },
        },
    )


def _as_openai(model_name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Our parameter names as the SDK's. The API has refused by name what the model does not take."""
    limit = "max_completion_tokens" if model_name.startswith(_COMPLETION_LIMIT_MODELS) else "max_tokens"
    names = {
        "temperature": "temperature",
        "top_p": "top_p",
        "max_new_tokens": limit,
        "seed": "seed",
        "stop": "stop",
    }
    unknown = [name for name in params if name not in names]
    if unknown:
        raise ProviderError("unsupported_param", f"openai does not take {', '.join(unknown)}", retryable=False)
    return {names[name]: value for name, value in params.items()}


def _beside(request: Request) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    if request.tools:
        sent["tools"] = [dict(tool) for tool in request.tools]
    if request.response_schema:
        # Not `strict`: that takes a part of JSON Schema only, and refuses all else with a 400.
        schema = {"name": "response", "schema": dict(request.response_schema)}
        sent["response_format"] = {"type": "json_schema", "json_schema": schema}
    return sent


def _read(
    response: httpx2.Response, started: float, said: Callable[[Mapping[str, Any]], tuple[str, str | None, int | None]]
) -> Answer:
    """What a 200 says. The body is read by hand: whatever it is, it becomes one of our errors."""
    latency_ms = round((time.monotonic() - started) * 1000)
    try:
        body = response.json()
        text, finish_reason, response_tokens = said(body)
        return Answer(
            text=text,
            prompt_tokens=_count((body.get("usage") or {}).get("prompt_tokens")),
            response_tokens=response_tokens,
            latency_ms=latency_ms,
            provider_request_id=response.headers.get("x-request-id") or body.get("id"),
            finish_reason=finish_reason,
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # A 200 was billed, and asking again would be billed again; but an unreadable answer is useless.
        raise ProviderError(
            "malformed_response", str(error) or "unreadable answer", retryable=True, possibly_paid=True
        ) from error


def _choice(body: Mapping[str, Any]) -> tuple[str, str | None, int | None]:
    """(text, finish reason, tokens of the reply) of the first choice."""
    choice = body["choices"][0]
    text, refused = _said(choice["message"])
    tokens = _count((body.get("usage") or {}).get("completion_tokens"))
    return text, "refusal" if refused else choice.get("finish_reason"), tokens


def _embedding(body: Mapping[str, Any]) -> tuple[str, str | None, int | None]:
    numbers = body["data"][0]["embedding"]
    if not numbers or not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
        raise TypeError("the embedding is no list of numbers")
    # Six digits tell any two texts apart that the model tells apart, at half the bytes.
    return dump_json({"embedding": [round(one, 6) for one in numbers]}), None, 0


def _said(message: Mapping[str, Any]) -> tuple[str, bool]:
    """(the text, whether it is a refusal). Neither a refusal nor a call of tools is malformed: both were asked for."""
    if message.get("tool_calls"):
        return dump_json({"content": message.get("content"), "tool_calls": message["tool_calls"]}), False
    text, refusal = message["content"], message.get("refusal")
    if isinstance(refusal, str) and not text:
        return refusal, True
    if not isinstance(text, str):
        raise TypeError("the message has no text")
    return text, False


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _from_status(error: openai.APIStatusError) -> ProviderError:
    status = error.status_code
    code = getattr(error, "code", None)
    if status == 429 and code == "insufficient_quota":
        return ProviderError("insufficient_quota", error.message, retryable=False)
    names = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 429: "rate_limited"}
    return ProviderError(
        names.get(status, "server_error" if status >= 500 else f"http_{status}"),
        error.message[:500],
        retryable=status in _RETRYABLE_STATUS or status >= 500,
        retry_after_seconds=_retry_after(error.response.headers.get("retry-after")),
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds from now; a header that is neither a number nor a date is ignored."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        parsed = email.utils.parsedate_to_datetime(value) if _is_date(value) else None
        if parsed is None:
            return None
        seconds = (parsed - datetime.now(UTC)).total_seconds()
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _is_date(value: str) -> bool:
    parsed = email.utils.parsedate_tz(value)
    return parsed is not None and parsed[9] is not None
